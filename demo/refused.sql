-- A value that CDF cannot take is refused at once, with the column and the limit.
INSERT INTO assets (external_id, name) VALUES ('too-long', repeat('a long name ', 20));
\echo SQLSTATE :LAST_ERROR_SQLSTATE

-- What only CDF can know is refused at COMMIT, and the whole transaction with it.
BEGIN;
INSERT INTO datapoints (external_id, "timestamp", value) VALUES
  ('seattle-wind',     '2016-01-01', 3.4),
  ('seattle-sunshine', '2016-01-01', 7.5);
COMMIT;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
