"""`callflow.at`: the moment as of which the views of the schema `callflow` answer.

It is a setting of the session (`SET callflow.at = '2026-11-17 14:05+01'`), which the function
`callflow.moment()` reads. It raises its error without an exception block: that would be a
subtransaction, which Postgres does not allow in a parallel query.
"""

from etl.warehouse.model.definition import FunctionDefinition

NAME = "callflow.moment()"

PER_ROW = "nullif(current_setting('callflow.at', true), '')::timestamptz"
"""The same for conditions on rows, at a tenth of the cost. `NAME` refuses what it cannot read."""

EXPECTED = "a date, or a date and a time, such as 2026-11-17 14:05+01"

FUNCTION = FunctionDefinition(
    "callflow.moment",
    "The moment as of which the views of callflow answer: the setting callflow.at. NULL if it is"
    " not set: then they answer as of now.",
    "",
    "timestamptz",
    f"""
DECLARE
  given text := current_setting('callflow.at', true);
  parts text[];
BEGIN
  IF given IS NULL OR given = '' THEN  -- RESET and SET LOCAL leave ''
    RETURN NULL;
  END IF;
  parts := regexp_match(given,
    '^(\\d{{4}})-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])'
    '([ T]([01]\\d|2[0-3]):[0-5]\\d(:[0-5]\\d(\\.\\d{{1,9}})?)?'
    '\\s?(Z|z|UTC|[+-](0\\d|1[0-5])(:?[0-5]\\d)?)?)?$');
  IF parts IS NULL OR parts[1] = '0000' OR parts[3]::integer > extract(day FROM
      make_date(parts[1]::integer, parts[2]::integer, 1) + interval '1 month - 1 day') THEN
    RAISE EXCEPTION 'callflow.at is ''%'': expected {EXPECTED}', left(given, 100)
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'SET callflow.at = ''2026-11-17 14:05+01'', or RESET callflow.at for today. '
                   'Without an offset, the time zone of the session counts.';
  END IF;
  RETURN given::timestamptz;
END
""",
    "plpgsql",
)
