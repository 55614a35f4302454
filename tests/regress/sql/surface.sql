-- What CREATE EXTENSION brings, and what DROP EXTENSION takes away.
CREATE EXTENSION cdf_fdw;
SELECT extname, extversion FROM pg_extension WHERE extname = 'cdf_fdw';
SELECT fdwname FROM pg_foreign_data_wrapper;

-- The signature of the set-up function, and who may call it.
SELECT pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result
FROM pg_proc WHERE proname = 'cdf_register_credentials' \gx
SELECT has_function_privilege('pg_monitor', oid, 'EXECUTE') AS anybody FROM pg_proc WHERE proname = 'cdf_register_credentials';

-- Tools that send text parameters need these casts.
SELECT castsource::regtype, casttarget::regtype, castcontext
FROM pg_cast
WHERE castsource IN ('text'::regtype, 'varchar'::regtype) AND casttarget IN ('json'::regtype, 'jsonb'::regtype)
ORDER BY 1, 2;
CREATE TEMP TABLE sent AS SELECT '{"a": 1}'::text AS t, '[2]'::varchar AS v;
CREATE TEMP TABLE received (t jsonb, v json);
INSERT INTO received SELECT t, v FROM sent;
SELECT * FROM received;

SELECT name, setting, unit, context FROM pg_settings WHERE name LIKE 'cdf\_fdw.%' ORDER BY name;

DROP EXTENSION cdf_fdw;
INSERT INTO received SELECT t, v FROM sent;
SELECT proname FROM pg_proc WHERE proname LIKE 'cdf\_%';
