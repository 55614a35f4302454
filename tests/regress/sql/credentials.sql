-- cdf_register_credentials, as a superuser.
CREATE EXTENSION cdf_fdw;
CREATE ROLE regress_existing LOGIN PASSWORD 'mine' CONNECTION LIMIT 3;

-- Without a name: a generated one.
SELECT username, password, database, schema FROM cdf_register_credentials(
  :'token_url', :'client_id', :'client_secret', :'scope', :'project') \gset generated_
SELECT :'generated_username' ~ '^cdf_[0-9a-f]{8}$' AS name, length(:'generated_password') AS password,
       :'generated_database' = current_database() AS database, :'generated_schema' = :'generated_username' AS schema;
SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolpassword LIKE 'SCRAM-SHA-256$%' AS scram
FROM pg_authid WHERE rolname = :'generated_username';

-- A new name.
SELECT username, length(password) AS password, database, schema FROM cdf_register_credentials(
  token_url => :'token_url', client_id => :'client_id', client_secret => :'client_secret', scope => :'scope',
  project => :'project', username => 'regress_new');

-- The name of a role that is there: its password stays.
SELECT username, password, schema FROM cdf_register_credentials(
  token_url => :'token_url', client_id => :'client_id', client_secret => :'client_secret', scope => :'scope',
  project => :'project', audience => 'somebody', base_url => :'emulator' || '/', username => 'regress_existing');
SELECT rolconnlimit FROM pg_roles WHERE rolname = 'regress_existing';

-- What it made.
SELECT srvname, srvowner::regrole, srvoptions, srvacl FROM pg_foreign_server;
SELECT usename, array(SELECT option_name FROM pg_options_to_table(umoptions)) AS options
FROM pg_user_mappings WHERE usename ~ '^regress' ORDER BY 1;
SELECT nspname, nspowner::regrole, nspacl FROM pg_namespace WHERE nspname ~ '^regress' ORDER BY 1;
SELECT count(*) = (SELECT count(*) FROM information_schema.foreign_tables WHERE foreign_table_schema = 'regress_existing') AS all,
       array_agg(DISTINCT relowner::regrole) AS owners, array_agg(DISTINCT substring(relacl::text FROM 'regress_new=[^},]*')) AS granted
FROM pg_class WHERE relnamespace = 'regress_new'::regnamespace;
SELECT setrole::regrole, setconfig FROM pg_db_role_setting WHERE setrole::regrole::text ~ '^regress'
  AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY setrole::regrole::text;

-- What the role may do.
SET ROLE regress_new;
SELECT has_server_privilege('cdf', 'USAGE') AS server, has_schema_privilege('regress_new', 'CREATE') AS create;
ALTER FOREIGN TABLE regress_new.assets OPTIONS (ADD updatable 'false');
CREATE FOREIGN TABLE pg_temp.mine (external_id text) SERVER cdf OPTIONS (resource 'assets');
SELECT umoptions FROM pg_user_mappings;
SELECT umoptions FROM pg_user_mapping;
SELECT cdf_register_credentials('https://example.com', 'a', 'b', 'https://example.com/.default', 'p');
RESET ROLE;

-- Again, with what an administrator has changed since.
DROP FOREIGN TABLE regress_existing.events;
REVOKE DELETE ON regress_existing.assets FROM regress_existing;
SELECT format('ALTER ROLE regress_existing IN DATABASE %I SET search_path = regress_existing, public', current_database()) \gexec
SELECT username, password FROM cdf_register_credentials(
  token_url => :'token_url', client_id => :'client_id', client_secret => :'client_secret', scope => :'scope',
  project => :'project', username => 'regress_existing');
SELECT array(SELECT option_name FROM pg_options_to_table(umoptions)) AS options
FROM pg_user_mappings WHERE usename = 'regress_existing';
SELECT relname, substring(relacl::text FROM 'regress_existing=[^},]*') AS granted FROM pg_class WHERE relnamespace = 'regress_existing'::regnamespace AND relname IN ('assets', 'events') ORDER BY 1;
SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'regress_existing'::regrole;

-- Refusals. Nothing is left of them.
CREATE TEMP TABLE before AS SELECT rolname FROM pg_roles;
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', 'hush', :'scope', :'project');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', 'another-project', username => 'regress_other');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', 'https://example.com/.default', :'project');
SELECT * FROM cdf_register_credentials(NULL, :'client_id', :'client_secret', :'scope', :'project');
SELECT * FROM cdf_register_credentials(:'token_url', '', :'client_secret', :'scope', :'project');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', NULL, :'scope', :'project');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', NULL, :'project');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', 'api://x', :'project');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', NULL);
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', :'project', server => NULL);
SELECT * FROM cdf_register_credentials('http://example.com/token', :'client_id', :'client_secret', :'scope', :'project');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', 'http://example.com/.default', :'project');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', :'project', username => repeat('x', 64));
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', :'project', username => 'public');
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', :'project', username => 'pg_catalog');
CREATE FOREIGN DATA WRAPPER other;
CREATE SERVER other FOREIGN DATA WRAPPER other;
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', :'project', server => 'other');
CREATE SCHEMA regress_other;
CREATE TABLE regress_other.events (external_id text);
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', :'project', username => 'regress_other');
BEGIN READ ONLY;
SELECT * FROM cdf_register_credentials(:'token_url', :'client_id', :'client_secret', :'scope', :'project');
ROLLBACK;
SELECT rolname FROM pg_roles EXCEPT SELECT rolname FROM before;
SELECT srvname FROM pg_foreign_server ORDER BY 1;

-- It is part of the caller's transaction.
BEGIN;
SELECT username FROM cdf_register_credentials(
  :'token_url', :'client_id', :'client_secret', :'scope', :'project', username => 'regress_undone', server => 'undone');
ROLLBACK;
SELECT to_regrole('regress_undone') AS role, to_regnamespace('regress_undone') AS schema;

-- Names that need quotes.
SELECT username, length(password) AS password, schema FROM cdf_register_credentials(
  :'token_url', :'client_id', :'client_secret', :'scope', :'project', username => 'regress "Odd", name', server => 'an "odd" one');
SELECT setconfig FROM pg_db_role_setting WHERE setrole = '"regress ""Odd"", name"'::regrole;

-- Roles outlive the database.
\set ECHO none
SET client_min_messages = warning;
DROP EXTENSION cdf_fdw CASCADE;
SELECT format('DROP OWNED BY %I CASCADE', rolname), format('DROP ROLE %I', rolname)
FROM pg_roles WHERE rolname ~ '^regress_' OR rolname ~ '^regress "' OR rolname = :'generated_username'
\gexec
