-- A database that has one of the casts already keeps its own, also when the extension goes.
CREATE CAST (text AS jsonb) WITH INOUT AS ASSIGNMENT;
CREATE EXTENSION cdf_fdw;
SELECT castsource::regtype, casttarget::regtype, d.refobjid IS NOT NULL AS of_extension
FROM pg_cast c LEFT JOIN pg_depend d ON d.classid = 'pg_cast'::regclass AND d.objid = c.oid AND d.deptype = 'e'
WHERE castsource IN ('text'::regtype, 'varchar'::regtype) AND casttarget IN ('json'::regtype, 'jsonb'::regtype)
ORDER BY 1, 2;
DROP EXTENSION cdf_fdw;
SELECT castsource::regtype, casttarget::regtype FROM pg_cast
WHERE castsource IN ('text'::regtype, 'varchar'::regtype) AND casttarget IN ('json'::regtype, 'jsonb'::regtype);
