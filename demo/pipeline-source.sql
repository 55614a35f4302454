-- The administrator makes a database beside readable: the historian of a brewery.
CREATE EXTENSION postgres_fdw;
CREATE SERVER historian FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port :'port', dbname 'historian');
CREATE USER MAPPING FOR :"username" SERVER historian OPTIONS (user 'reader', password 'reads');
CREATE SCHEMA plant;
CREATE FOREIGN TABLE plant.readings (tag text, at timestamptz, value float8, changed timestamptz)
  SERVER historian OPTIONS (schema_name 'public', table_name 'readings');
GRANT USAGE ON SCHEMA plant TO :"username";
GRANT SELECT ON plant.readings TO :"username";
CREATE SCHEMA pipeline AUTHORIZATION :"username";
