-- In the database of POSTGRES_DB.
CREATE EXTENSION IF NOT EXISTS cdf_fdw;
