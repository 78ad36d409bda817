-- How many flows were live at the end of each day (UTC), per source, from the history: what starts
-- to be live counts +1 on that day, what ends -1, and the sum up to a day is what is live then.
with versions as (
    select provider, source, valid_from, valid_to
    from {{ source('callflow', 'flows_history') }}
    where is_live
),

steps as (
    select provider, source, (valid_from at time zone 'UTC')::date as day, 1 as step from versions
    union all
    select provider, source, (valid_to at time zone 'UTC')::date, -1 from versions
    where valid_to is not null
),

days as (
    select first.provider, first.source, first.day + later as day
    from (select provider, source, min(day) as day from steps group by 1, 2) as first
    cross join lateral generate_series(0, (now() at time zone 'UTC')::date - first.day) as later
),

sums as (
    select provider, source, day, sum(step) as step from steps group by 1, 2, 3
)

select
    days.day,
    days.provider,
    days.source,
    sum(coalesce(sums.step, 0)) over (
        partition by days.provider, days.source order by days.day
    )::bigint as live_count
from days
left join sums using (provider, source, day)
