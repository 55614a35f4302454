-- IMPORT FOREIGN SCHEMA. No request to CDF is made here.
CREATE EXTENSION cdf_fdw;
CREATE SERVER "my server" FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url :'emulator');

\pset format unaligned
CREATE SCHEMA everything;
IMPORT FOREIGN SCHEMA cdf FROM SERVER "my server" INTO everything;
SELECT foreign_table_name, option_name, option_value
FROM information_schema.foreign_table_options WHERE foreign_table_schema = 'everything' ORDER BY 1, 2;
SELECT table_name, string_agg(column_name || ' ' || CASE data_type
         WHEN 'ARRAY' THEN ltrim(udt_name, '_') || '[]'
         WHEN 'timestamp with time zone' THEN 'timestamptz'
         ELSE data_type END, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns WHERE table_schema = 'everything' GROUP BY 1 ORDER BY 1;
SELECT count(*) AS options_on_columns FROM information_schema.column_options WHERE table_schema = 'everything';

CREATE SCHEMA few;
IMPORT FOREIGN SCHEMA cdf LIMIT TO (datapoints, assets) FROM SERVER "my server" INTO few;
SELECT foreign_table_name FROM information_schema.foreign_tables WHERE foreign_table_schema = 'few' ORDER BY 1;
-- What is there already is an error, as with any import.
IMPORT FOREIGN SCHEMA cdf LIMIT TO (assets) FROM SERVER "my server" INTO few;

CREATE SCHEMA most;
IMPORT FOREIGN SCHEMA cdf EXCEPT (raw_rows, assets, no_such_table) FROM SERVER "my server" INTO most;
SELECT a.foreign_table_name AS left_out
FROM information_schema.foreign_tables a
WHERE a.foreign_table_schema = 'everything' AND a.foreign_table_name NOT IN
  (SELECT foreign_table_name FROM information_schema.foreign_tables WHERE foreign_table_schema = 'most') ORDER BY 1;

-- Refusals.
IMPORT FOREIGN SCHEMA public FROM SERVER "my server" INTO few;
\echo :LAST_ERROR_SQLSTATE
IMPORT FOREIGN SCHEMA "CDF" FROM SERVER "my server" INTO few;
IMPORT FOREIGN SCHEMA cdf FROM SERVER "my server" INTO few OPTIONS (import_default 'true');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
IMPORT FOREIGN SCHEMA cdf LIMIT TO (asset) FROM SERVER "my server" INTO few;
\echo :LAST_ERROR_SQLSTATE
