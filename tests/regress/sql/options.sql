-- Every refusal of an option: its name, its place, its value. No request to CDF is made here.
CREATE EXTENSION cdf_fdw;
\set VERBOSITY sqlstate

-- With the SQLSTATE first: HV00D for names, HV00J for values.
ALTER FOREIGN DATA WRAPPER cdf_fdw OPTIONS (ADD base_url 'https://example.com');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (host 'example.com');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw;

\set VERBOSITY default
ALTER FOREIGN DATA WRAPPER cdf_fdw OPTIONS (ADD base_url 'https://example.com');

-- Servers.
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw;
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com', host 'example.com');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com', project 'p');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com', truncatable 'true');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'example.com');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'ftp://example.com');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://me:hush@example.com');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com/?project=p');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com', on_conflict 'nothing');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com', null_handling 'null');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com', updatable 'perhaps');

-- http:// is for this machine, unless a superuser allows it.
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://example.com');
CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://localhost.example.com');
CREATE SERVER s1 FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://localhost:1');
CREATE SERVER s2 FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://127.1.2.3');
CREATE SERVER s3 FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://[::1]');
SET cdf_fdw.allow_http = on;
CREATE SERVER s4 FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://example.com');
RESET cdf_fdw.allow_http;
ALTER SERVER s4 OPTIONS (ADD updatable 'false');
SET ROLE pg_monitor;
SET cdf_fdw.allow_http = on;
RESET ROLE;

CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw
  OPTIONS (base_url 'https://example.com', on_conflict 'ignore', null_handling 'set_null', updatable 'off');
ALTER SERVER s OPTIONS (DROP base_url);
ALTER SERVER s OPTIONS (SET on_conflict 'UPDATE');
ALTER SERVER s OPTIONS (DROP on_conflict, DROP null_handling, DROP updatable);

-- User mappings. No error repeats the secret.
CREATE USER MAPPING FOR PUBLIC SERVER s;
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (token_url 'https://example.com/token', client_id 'me', client_secret 'hush');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (project 'p', client_id 'me', client_secret 'hush');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (project 'p', token_url 'https://example.com/token', client_secret 'hush');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (project 'p', token_url 'https://example.com/token', client_id 'me');
CREATE USER MAPPING FOR PUBLIC SERVER s
  OPTIONS (project 'p', token_url 'https://example.com/token', client_id 'me', client_secret '');
CREATE USER MAPPING FOR PUBLIC SERVER s
  OPTIONS (project 'p', token_url 'http://example.com/token', client_id 'me', client_secret 'hush');
CREATE USER MAPPING FOR PUBLIC SERVER s
  OPTIONS (project 'p', token_url 'https://example.com/token#hush', client_id 'me', client_secret 'hush');
CREATE USER MAPPING FOR PUBLIC SERVER s
  OPTIONS (project 'p', token_url 'https://example.com/token', client_id 'me', client_secret 'hush', password 'hush');
CREATE USER MAPPING FOR PUBLIC SERVER s
  OPTIONS (project 'p', token_url 'https://example.com/token', client_id 'me', client_secret 'hush', base_url 'https://example.com');
CREATE USER MAPPING FOR PUBLIC SERVER s
  OPTIONS (project 'p', token_url 'https://example.com/token?p=x', client_id 'me', client_secret 'hush', scope 's', audience 'a');
ALTER USER MAPPING FOR PUBLIC SERVER s OPTIONS (DROP client_secret);

-- Foreign tables.
CREATE FOREIGN TABLE t (external_id text) SERVER s;
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', client_secret 'hush');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', batch_size '10');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', database 'd', "table" 't');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', create_missing 'true');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'raw_rows', create_missing 'true');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'datapoints', primary_key 'external_id');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'datapoints', create_missing '2');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', on_conflict 'replace');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', null_handling 'clear');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', truncatable '');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'assets', updatable 'maybe');
CREATE FOREIGN TABLE t (key text) SERVER s OPTIONS (resource 'raw_rows', database 'd');
CREATE FOREIGN TABLE t (key text) SERVER s OPTIONS (resource 'raw_rows', "table" 't');
CREATE FOREIGN TABLE t (key text) SERVER s OPTIONS (resource 'raw_rows', primary_key 'key');
CREATE FOREIGN TABLE t (key text) SERVER s OPTIONS (resource 'raw_rows', database '', "table" 't');
CREATE FOREIGN TABLE t (key text) SERVER s
  OPTIONS (resource 'raw_rows', database 'a_name_of_more_than_thirty_two_characters', "table" 't');
\set VERBOSITY terse
-- The list of resources grows with the extension.
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource 'asset');
CREATE FOREIGN TABLE t (external_id text) SERVER s OPTIONS (resource '');
\set VERBOSITY default

CREATE FOREIGN TABLE t (external_id text) SERVER s
  OPTIONS (resource 'datapoints', create_missing 'true', on_conflict 'update', null_handling 'ignore', truncatable 'yes', updatable '1');
CREATE FOREIGN TABLE r (key text, title text OPTIONS (name 'Title')) SERVER s
  OPTIONS (resource 'raw_rows', database 'd', "table" 't', primary_key 'key');
ALTER FOREIGN TABLE t OPTIONS (DROP resource);
ALTER FOREIGN TABLE t OPTIONS (SET resource 'assets');

-- Columns.
ALTER FOREIGN TABLE r ALTER COLUMN title OPTIONS (SET name '');
ALTER FOREIGN TABLE r ALTER COLUMN title OPTIONS (ADD column_name 'x');
ALTER FOREIGN TABLE r ALTER COLUMN title OPTIONS (ADD updatable 'false');
ALTER FOREIGN TABLE r ALTER COLUMN title OPTIONS (DROP name);

-- Settings. Their words differ between PostgreSQL's majors, and before 15 the prefix was not reserved.
\set VERBOSITY sqlstate
SET cdf_fdw.request_timeout = 0;
SET cdf_fdw.buffer_memory = '1kB';
SET cdf_fdw.max_concurrent_requests = 0;
SET cdf_fdw.max_retries = -1;
SELECT current_setting('server_version_num')::int >= 150000 AS reserved \gset
\if :reserved
SET cdf_fdw.no_such_setting = 1;
\else
\warn ERROR:  42602
\endif
SET cdf_fdw.flush_timeout = '5min';
SHOW cdf_fdw.flush_timeout;
