\echo Use "CREATE EXTENSION cdf_fdw" to load this file. \quit

-- This runs as a superuser, with the extension's schema in the search_path, and others may be allowed to create objects in
-- that schema. So every name is one of pg_catalog, written with it, or one that this script has made; no function or
-- operator is called; and our own functions are named with all their parameters.

CREATE FUNCTION cdf_fdw_handler() RETURNS pg_catalog.fdw_handler
LANGUAGE C STRICT
AS 'MODULE_PATHNAME', 'cdf_fdw_handler_wrapper';

CREATE FUNCTION cdf_fdw_validator(pg_catalog.text[], pg_catalog.oid) RETURNS pg_catalog.void
LANGUAGE C STRICT
AS 'MODULE_PATHNAME', 'cdf_fdw_validator_wrapper';

CREATE FOREIGN DATA WRAPPER cdf_fdw
HANDLER cdf_fdw_handler
VALIDATOR cdf_fdw_validator;

COMMENT ON FOREIGN DATA WRAPPER cdf_fdw IS 'Cognite Data Fusion: rows are delivered at COMMIT';

-- Called by the planner, before it is checked who may call the function below. That loads the library, which keeps the
-- secret in the function's arguments out of the server log when the call fails.
CREATE FUNCTION cdf_register_credentials_support(pg_catalog.internal) RETURNS pg_catalog.internal
LANGUAGE C STRICT
AS 'MODULE_PATHNAME', 'cdf_register_credentials_support';

CREATE FUNCTION cdf_register_credentials(
  token_url pg_catalog.text,
  client_id pg_catalog.text,
  client_secret pg_catalog.text,
  scope pg_catalog.text,
  project pg_catalog.text,
  base_url pg_catalog.text DEFAULT NULL,
  audience pg_catalog.text DEFAULT NULL,
  username pg_catalog.text DEFAULT NULL,
  server pg_catalog.name DEFAULT 'cdf',
  schema pg_catalog.name DEFAULT NULL,
  naming pg_catalog.text DEFAULT 'snake_case'
) RETURNS TABLE (
  username pg_catalog.text,
  password pg_catalog.text,
  database pg_catalog.text,
  schema pg_catalog.text
)
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 COST 1000000
SUPPORT cdf_register_credentials_support
-- What it creates must not depend on what the caller, or a schema before pg_catalog, calls by the same names.
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_register_credentials';

REVOKE ALL ON FUNCTION cdf_register_credentials(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text,
  pg_catalog.text, pg_catalog.name, pg_catalog.name, pg_catalog.text
) FROM PUBLIC;

COMMENT ON FUNCTION cdf_register_credentials(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text,
  pg_catalog.text, pg_catalog.name, pg_catalog.name, pg_catalog.text
) IS
'Checks OIDC credentials with CDF, and makes a role, its user mapping and a schema with the built-in tables. '
'The password of a new role is shown this once. The client secret is masked in the server log from the moment on at '
'which the session has loaded the library: have it in session_preload_libraries.';

-- Tools send JSON as text or varchar parameters. PostgreSQL takes a text only as a text where a column is json or jsonb,
-- unless there is such a cast. A database that has them already keeps its own.
DO $$
BEGIN
  BEGIN
    CREATE CAST (pg_catalog.text AS pg_catalog.jsonb) WITH INOUT AS ASSIGNMENT;
  EXCEPTION WHEN duplicate_object THEN
    NULL;
  END;
  BEGIN
    CREATE CAST (pg_catalog.text AS pg_catalog.json) WITH INOUT AS ASSIGNMENT;
  EXCEPTION WHEN duplicate_object THEN
    NULL;
  END;
  BEGIN
    CREATE CAST (pg_catalog.varchar AS pg_catalog.jsonb) WITH INOUT AS ASSIGNMENT;
  EXCEPTION WHEN duplicate_object THEN
    NULL;
  END;
  BEGIN
    CREATE CAST (pg_catalog.varchar AS pg_catalog.json) WITH INOUT AS ASSIGNMENT;
  EXCEPTION WHEN duplicate_object THEN
    NULL;
  END;
END
$$;
