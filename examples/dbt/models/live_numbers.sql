-- Numbers and addresses that reach a live flow, and with how many other live flows they share it.
with live as (
    select * from {{ source('callflow', 'number_map') }} where is_live
),

shared as (
    select address_key, count(distinct flow_key) as flow_count
    from live
    where address_key is not null
    group by address_key
)

select
    live.provider,
    live.source,
    live.account_id,
    live.flow_id,
    live.flow_key,
    live.flow_name,
    live.entry_point_id,
    live.kind,
    live.address,
    live.address_key,
    live.language,
    coalesce(shared.flow_count, 1) as flow_count
from live
left join shared on shared.address_key = live.address_key
