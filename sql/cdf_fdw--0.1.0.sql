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

-- Called by the planner, before it is checked who may call a function that takes a secret. That loads the library, which
-- keeps the secret in the function's arguments out of the server log when the call fails.
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

-- What is known of registrations. Only the functions of this extension read and write it, as its owner. Roles are held as
-- such: one that is renamed keeps its registration, one that is dropped leaves it to nobody. A dump has them by name.
CREATE TABLE cdf_registrations (
  role pg_catalog.regrole NOT NULL,
  server pg_catalog.name NOT NULL,
  schema pg_catalog.name NOT NULL,
  registrar pg_catalog.regrole NOT NULL,
  made_role pg_catalog.bool NOT NULL,
  made_schema pg_catalog.bool NOT NULL,
  tables pg_catalog.name[] NOT NULL,
  created pg_catalog.timestamptz NOT NULL,
  changed pg_catalog.timestamptz NOT NULL,
  PRIMARY KEY (role, server, schema)
);

REVOKE ALL ON TABLE cdf_registrations FROM PUBLIC;

-- Without a policy, nobody but the owner and superusers has any row. Rights alone would let the members of pg_write_all_data
-- make themselves registrars.
ALTER TABLE cdf_registrations ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE cdf_registrations IS 'The registrations, for the functions of cdf_fdw. The view cdf_credentials shows them.';

-- The number of a role that was dropped would be another role's where the dump is restored.
SELECT pg_catalog.pg_extension_config_dump(
  'cdf_registrations',
  'WHERE role IN (SELECT oid FROM pg_catalog.pg_roles) AND registrar IN (SELECT oid FROM pg_catalog.pg_roles)'
);

-- Conditions of others must not see the rows before this one's own: they could tell of them.
CREATE VIEW cdf_credentials WITH (security_barrier) AS
SELECT
  CAST(r.rolname AS pg_catalog.text) AS username,
  CAST(c.server AS pg_catalog.text) AS server,
  (SELECT o.option_value FROM pg_catalog.pg_options_to_table(s.srvoptions) AS o
   WHERE o.option_name OPERATOR(pg_catalog.=) 'base_url') AS base_url,
  (SELECT o.option_value FROM pg_catalog.pg_options_to_table(m.umoptions) AS o
   WHERE o.option_name OPERATOR(pg_catalog.=) 'project') AS project,
  (SELECT o.option_value FROM pg_catalog.pg_options_to_table(m.umoptions) AS o
   WHERE o.option_name OPERATOR(pg_catalog.=) 'client_id') AS client_id,
  (SELECT o.option_value FROM pg_catalog.pg_options_to_table(m.umoptions) AS o
   WHERE o.option_name OPERATOR(pg_catalog.=) 'token_url') AS token_url,
  (SELECT o.option_value FROM pg_catalog.pg_options_to_table(m.umoptions) AS o
   WHERE o.option_name OPERATOR(pg_catalog.=) 'scope') AS scope,
  (SELECT o.option_value FROM pg_catalog.pg_options_to_table(m.umoptions) AS o
   WHERE o.option_name OPERATOR(pg_catalog.=) 'audience') AS audience,
  CAST(c.schema AS pg_catalog.text) AS schema,
  EXISTS (
    SELECT FROM pg_catalog.pg_options_to_table(m.umoptions) AS o
    WHERE (o.option_name OPERATOR(pg_catalog.=) 'client_secret' OR o.option_name OPERATOR(pg_catalog.=) 'session_key')
    AND o.option_value OPERATOR(pg_catalog.^@) 'sealed:'
  ) AS sealed,
  c.created AS created,
  c.changed AS changed
FROM cdf_registrations AS c
JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) CAST(c.role AS pg_catalog.oid)
LEFT JOIN pg_catalog.pg_foreign_server AS s ON s.srvname OPERATOR(pg_catalog.=) c.server
LEFT JOIN pg_catalog.pg_user_mapping AS m
  ON m.umserver OPERATOR(pg_catalog.=) s.oid AND m.umuser OPERATOR(pg_catalog.=) r.oid
WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER
OR EXISTS (
  SELECT FROM pg_catalog.pg_roles AS u
  WHERE u.rolname OPERATOR(pg_catalog.=) CURRENT_USER
  AND (u.rolsuper OR u.oid OPERATOR(pg_catalog.=) CAST(c.registrar AS pg_catalog.oid))
);

GRANT SELECT ON cdf_credentials TO PUBLIC;

COMMENT ON VIEW cdf_credentials IS
'The registrations: all for a superuser, those that a registrar has made, and its own for a role. No secret is in it.';

-- Those who may call these are superusers and, for what they have made themselves, registrars: cdf_register_credentials lets
-- whoever calls it call these, too.
CREATE FUNCTION cdf_reset_password(
  username pg_catalog.text
) RETURNS pg_catalog.text
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_reset_password';

REVOKE ALL ON FUNCTION cdf_reset_password(pg_catalog.text) FROM PUBLIC;

COMMENT ON FUNCTION cdf_reset_password(pg_catalog.text) IS
'Gives a registered role a new password, which is shown this once.';

CREATE FUNCTION cdf_drop_credentials(
  username pg_catalog.text,
  force pg_catalog.bool DEFAULT false
) RETURNS pg_catalog.void
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_drop_credentials';

REVOKE ALL ON FUNCTION cdf_drop_credentials(pg_catalog.text, pg_catalog.bool) FROM PUBLIC;

COMMENT ON FUNCTION cdf_drop_credentials(pg_catalog.text, pg_catalog.bool) IS
'Drops what cdf_register_credentials has made for a role: user mapping, tables, schema, and the role itself.';

CREATE FUNCTION cdf_update_credentials(
  username pg_catalog.text,
  client_secret pg_catalog.text DEFAULT NULL,
  client_id pg_catalog.text DEFAULT NULL,
  token_url pg_catalog.text DEFAULT NULL,
  scope pg_catalog.text DEFAULT NULL,
  project pg_catalog.text DEFAULT NULL,
  audience pg_catalog.text DEFAULT NULL
) RETURNS pg_catalog.void
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000
SUPPORT cdf_register_credentials_support
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_update_credentials';

REVOKE ALL ON FUNCTION cdf_update_credentials(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text
) FROM PUBLIC;

COMMENT ON FUNCTION cdf_update_credentials(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text
) IS
'Replaces what is given of the credentials of a registered role, once CDF has accepted them. Open sessions use them from '
'their next transaction on.';

CREATE FUNCTION cdf_seal_secrets() RETURNS pg_catalog.int8
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_seal_secrets';

REVOKE ALL ON FUNCTION cdf_seal_secrets() FROM PUBLIC;

COMMENT ON FUNCTION cdf_seal_secrets() IS
'Seals the secrets of all user mappings in this database under the first key of cdf_fdw.secret_key_file, and tells how many it '
'has sealed: those that were plain, and those that were under another key.';

CREATE FUNCTION cdf_check_credentials(
  username pg_catalog.text
) RETURNS TABLE (
  subject pg_catalog.text,
  item pg_catalog.text,
  needed pg_catalog.text,
  ok pg_catalog.bool,
  message pg_catalog.text
)
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 30 COST 1000000
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_check_credentials';

REVOKE ALL ON FUNCTION cdf_check_credentials(pg_catalog.text) FROM PUBLIC;

COMMENT ON FUNCTION cdf_check_credentials(pg_catalog.text) IS
'Gets a token for a registered role, and tells whether it has the project and, for each table, the capabilities.';

CREATE FUNCTION cdf_create_raw_table(
  username pg_catalog.text,
  tablename pg_catalog.text,
  database pg_catalog.text,
  "table" pg_catalog.text,
  columns pg_catalog.json,
  primary_key pg_catalog.text DEFAULT 'key'
) RETURNS pg_catalog.regclass
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_create_raw_table';

REVOKE ALL ON FUNCTION cdf_create_raw_table(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.json, pg_catalog.text
) FROM PUBLIC;

COMMENT ON FUNCTION cdf_create_raw_table(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.json, pg_catalog.text
) IS
'Makes a table of a RAW table for a registered role. The columns are given as {"title": {"type": "TEXT"}}.';

CREATE FUNCTION cdf_create_view_table(
  username pg_catalog.text,
  tablename pg_catalog.text,
  space pg_catalog.text,
  external_id pg_catalog.text,
  version pg_catalog.text DEFAULT NULL
) RETURNS pg_catalog.regclass
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_create_view_table';

REVOKE ALL ON FUNCTION cdf_create_view_table(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text
) FROM PUBLIC;

COMMENT ON FUNCTION cdf_create_view_table(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text
) IS
'Makes a table of a data-model view for a registered role; without a version, of the newest one at any time.';

-- The façades, and the foreign tables behind them, as they are called at any time. A dump has their names.
CREATE TABLE cdf_facades (
  facade pg_catalog.regclass NOT NULL,
  partition pg_catalog.regclass NOT NULL,
  made_not_null pg_catalog.name[] NOT NULL,
  PRIMARY KEY (facade)
);

REVOKE ALL ON TABLE cdf_facades FROM PUBLIC;

-- As for the registrations: members of pg_write_all_data could make a façade of another's table.
ALTER TABLE cdf_facades ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE cdf_facades IS
'The partitioned tables that cdf_create_facade has made, for the functions of cdf_fdw.';

-- The number of a table that was dropped would be another table's where the dump is restored.
SELECT pg_catalog.pg_extension_config_dump(
  'cdf_facades',
  'WHERE facade IN (SELECT oid FROM pg_catalog.pg_class) AND partition IN (SELECT oid FROM pg_catalog.pg_class)'
);

CREATE FUNCTION cdf_create_facade(
  username pg_catalog.text
) RETURNS pg_catalog.void
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_create_facade';

REVOKE ALL ON FUNCTION cdf_create_facade(pg_catalog.text) FROM PUBLIC;

COMMENT ON FUNCTION cdf_create_facade(pg_catalog.text) IS
'Puts a partitioned table into the place of each foreign table of a registered role, for tools that do not see foreign tables. '
'The foreign table becomes its only partition, in a schema beside.';

CREATE FUNCTION cdf_drop_facade(
  username pg_catalog.text
) RETURNS pg_catalog.void
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_drop_facade';

REVOKE ALL ON FUNCTION cdf_drop_facade(pg_catalog.text) FROM PUBLIC;

COMMENT ON FUNCTION cdf_drop_facade(pg_catalog.text) IS
'Puts the foreign tables of a registered role back into the places of what cdf_create_facade has made.';

-- For cdf-gateway-api. Everybody may call them: the first one looks for the right to call cdf_register_credentials, the second
-- one for who has made the registration.
CREATE FUNCTION cdf_register_session(
  session_id pg_catalog.text,
  session_key pg_catalog.text,
  project pg_catalog.text,
  base_url pg_catalog.text,
  naming pg_catalog.text DEFAULT 'snake_case'
) RETURNS TABLE (
  username pg_catalog.text,
  password pg_catalog.text,
  database pg_catalog.text,
  schema pg_catalog.text
)
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 COST 1000000
SUPPORT cdf_register_credentials_support
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_register_session';

COMMENT ON FUNCTION cdf_register_session(
  pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text
) IS
'As cdf_register_credentials, with a session of CDF. cdf-gateway-api calls it.';

CREATE FUNCTION cdf_update_session(
  username pg_catalog.text,
  session_id pg_catalog.text,
  session_key pg_catalog.text
) RETURNS pg_catalog.void
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000
SUPPORT cdf_register_credentials_support
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cdf_update_session';

COMMENT ON FUNCTION cdf_update_session(pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
'Gives a registered role another session of CDF in its project. cdf-gateway-api calls it.';

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
