-- Changes per week of what kind, as callflow saw them. Weeks start on Monday, 00:00 UTC.
select
    date_trunc('week', observed_at at time zone 'UTC')::date as week,
    provider,
    source,
    entity,
    change,
    count(*) as change_count,
    count(distinct flow_key) as flow_count,
    count(distinct modified_by) as editor_count
from {{ source('callflow', 'changes') }}
group by 1, 2, 3, 4, 5
