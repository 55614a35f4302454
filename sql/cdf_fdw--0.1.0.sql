\echo Use "CREATE EXTENSION cdf_fdw" to load this file. \quit

CREATE FUNCTION cdf_fdw_handler() RETURNS fdw_handler
LANGUAGE C STRICT
AS 'MODULE_PATHNAME', 'cdf_fdw_handler_wrapper';

CREATE FUNCTION cdf_fdw_validator(text[], oid) RETURNS void
LANGUAGE C STRICT
AS 'MODULE_PATHNAME', 'cdf_fdw_validator_wrapper';

CREATE FOREIGN DATA WRAPPER cdf_fdw
HANDLER cdf_fdw_handler
VALIDATOR cdf_fdw_validator;

COMMENT ON FOREIGN DATA WRAPPER cdf_fdw IS 'Cognite Data Fusion: rows are delivered at COMMIT';

-- Called by the planner, before it is checked who may call the function below. That loads the library, which keeps the
-- function's statements out of the server log when they fail.
CREATE FUNCTION cdf_register_credentials_support(internal) RETURNS internal
LANGUAGE C STRICT
AS 'MODULE_PATHNAME', 'cdf_register_credentials_support';

CREATE FUNCTION cdf_register_credentials(
  token_url text,
  client_id text,
  client_secret text,
  scope text,
  project text,
  base_url text DEFAULT NULL,
  audience text DEFAULT NULL,
  username text DEFAULT NULL,
  server name DEFAULT 'cdf'
) RETURNS TABLE (username text, password text, database text, schema text)
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 COST 1000000
SUPPORT cdf_register_credentials_support
-- What it creates must not depend on what the caller, or a schema before pg_catalog, calls by the same names.
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_register_credentials';

REVOKE ALL ON FUNCTION cdf_register_credentials FROM PUBLIC;

COMMENT ON FUNCTION cdf_register_credentials IS
'Checks OIDC credentials with CDF, and makes a role, its user mapping and a schema with the built-in tables. '
'The password of a new role is shown this once. A failing call is kept out of the server log; before a call under '
'log_statement or log_min_duration_statement, SET log_statement = none, or have the library in '
'session_preload_libraries.';

-- Tools send JSON as text or varchar parameters. PostgreSQL takes a text only as a text where a column is json or jsonb,
-- unless there is such a cast. A database that has them already keeps its own.
DO $$
DECLARE
  source regtype;
  target regtype;
BEGIN
  FOREACH source IN ARRAY ARRAY['text', 'varchar']::regtype[] LOOP
    FOREACH target IN ARRAY ARRAY['jsonb', 'json']::regtype[] LOOP
      BEGIN
        EXECUTE format('CREATE CAST (%s AS %s) WITH INOUT AS ASSIGNMENT', source, target);
      EXCEPTION WHEN duplicate_object THEN
        NULL;
      END;
    END LOOP;
  END LOOP;
END
$$;
