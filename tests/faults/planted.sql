-- Plants in the schema {schema} a function for nearly every function, operator, type and relation of
-- pg_catalog, with the same name and arguments, and once more with varchar for text. Whichever of
-- them runs moves the sequence {schema}.ran, which no rollback undoes, and raises an exception.
SET LOCAL search_path = pg_catalog;
SET LOCAL check_function_bodies = off;
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE SEQUENCE {schema}.ran;
CREATE FUNCTION {schema}.planted() RETURNS boolean LANGUAGE plpgsql AS $planted$
BEGIN
    PERFORM pg_catalog.nextval('{schema}.ran'::pg_catalog.regclass);
    RAISE EXCEPTION 'a planted function ran';
END $planted$;

DO $plant$
DECLARE
    it record;
BEGIN
    FOR it IN
        SELECT DISTINCT proname, arguments, CASE WHEN proretset THEN 'SETOF ' ELSE '' END
            || CASE WHEN prorettype = 'cstring'::regtype THEN 'text'
               ELSE format_type(prorettype, NULL) END AS result
        FROM pg_proc
        CROSS JOIN LATERAL (VALUES
            (oidvectortypes(proargtypes)),
            (replace(replace(oidvectortypes(proargtypes), 'text', 'varchar'), 'name', 'varchar')),
            (replace(oidvectortypes(proargtypes), '"any"', 'anyelement'))
        ) AS variants (arguments)
        WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND provariadic = 0
            AND (prolang = 12 OR prolang = 14)
            AND proname NOT LIKE '%recv' AND proname NOT LIKE 'bt%' AND proname NOT LIKE 'gin%'
            AND proname NOT LIKE 'gist%' AND proname NOT LIKE '%sel' AND proname NOT LIKE 'spg%'
            AND proname NOT LIKE '%_in' AND proname NOT LIKE '%in' AND proname NOT LIKE 'RI%'
            AND proname NOT LIKE '%_out' AND proname NOT LIKE '%send' AND proname NOT LIKE 'brin%'
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE FUNCTION {schema}.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
                '''BEGIN PERFORM {schema}.planted(); END''', it.proname, it.arguments, it.result);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR it IN
        SELECT oid, oprname, oprkind, format_type(oprleft, NULL) AS l,
            format_type(oprright, NULL) AS r, format_type(oprresult, NULL) AS result, variant
        FROM pg_operator, generate_series(0, 2) AS variant
        WHERE oprnamespace = 'pg_catalog'::regnamespace
            AND (variant = 0 OR 'text'::regtype IN (oprleft, oprright)
                OR 'name'::regtype IN (oprleft, oprright))
    LOOP
        BEGIN
            IF it.variant = 1 THEN
                it.l := replace(replace(it.l, 'text', 'varchar'), 'name', 'varchar');
                it.r := replace(replace(it.r, 'text', 'varchar'), 'name', 'varchar');
            ELSIF it.variant = 2 THEN
                it.r := replace(replace(it.r, 'text', 'varchar'), 'name', 'varchar');
            END IF;
            EXECUTE format(
                'CREATE FUNCTION {schema}.o%s_%s(%s) RETURNS %s LANGUAGE plpgsql AS '
                '''BEGIN PERFORM {schema}.planted(); END''',
                it.oid, it.variant,
                CASE WHEN it.oprkind = 'l' THEN it.r ELSE it.l || ', ' || it.r END, it.result);
            EXECUTE format(
                'CREATE OPERATOR {schema}.%s (FUNCTION = {schema}.o%s_%s, %s RIGHTARG = %s)',
                it.oprname, it.oid, it.variant,
                CASE WHEN it.oprkind = 'l' THEN '' ELSE 'LEFTARG = ' || it.l || ',' END, it.r);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    CREATE FUNCTION {schema}.step(bigint) RETURNS bigint LANGUAGE plpgsql
        AS 'BEGIN PERFORM {schema}.planted(); END';
    CREATE FUNCTION {schema}.step(bigint, anyelement) RETURNS bigint LANGUAGE plpgsql
        AS 'BEGIN PERFORM {schema}.planted(); END';
    CREATE FUNCTION {schema}.format(text, name, name) RETURNS text LANGUAGE plpgsql
        AS 'BEGIN PERFORM {schema}.planted(); END';
    CREATE AGGREGATE {schema}.count(*) (SFUNC = {schema}.step, STYPE = bigint, INITCOND = '0');
    CREATE AGGREGATE {schema}.count(anyelement)
        (SFUNC = {schema}.step, STYPE = bigint, INITCOND = '0');
    FOR it IN SELECT typname FROM unnest(ARRAY['text', 'jsonb', 'json', 'int4', 'int8', 'bool',
        'timestamptz', 'name', 'oid', 'regclass', 'bytea', 'uuid', 'float8']) AS typname
    LOOP
        EXECUTE format('CREATE DOMAIN {schema}.%1$I AS pg_catalog.%1$I CHECK ({schema}.planted())',
            it.typname);
    END LOOP;
    FOR it IN SELECT relname FROM pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
    LOOP
        BEGIN
            EXECUTE format('CREATE VIEW {schema}.%1$I AS SELECT *, {schema}.planted() AS planted_ '
                'FROM pg_catalog.%1$I', it.relname);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END $plant$;
GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO PUBLIC;
