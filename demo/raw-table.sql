-- The administrator declares a RAW table with typed columns: the CSV file's own. The column "date" is the row key.
CREATE FOREIGN TABLE :"schema".seattle_days (
  date          date,
  precipitation double precision,
  temp_max      double precision,
  temp_min      double precision,
  wind          double precision,
  weather       text
) SERVER cdf OPTIONS (resource 'raw_rows', database 'weather', "table" 'seattle_days', primary_key 'date');
GRANT SELECT, INSERT ON :"schema".seattle_days TO :"username";
