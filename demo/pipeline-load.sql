-- The role makes the pipeline: how far the last run came, and a run, which is one transaction.
CREATE TABLE pipeline.watermark (source text PRIMARY KEY, up_to timestamptz NOT NULL);
INSERT INTO pipeline.watermark VALUES ('readings', '-infinity');
BEGIN;
INSERT INTO data_sets (external_id, name) VALUES ('brewery', 'The brewery');
INSERT INTO extraction_pipelines (external_id, name, data_set_external_id) VALUES ('brewery-readings', 'Readings', 'brewery');
INSERT INTO timeseries (external_id, name, unit) VALUES ('kettle-1', 'Kettle 1', '°C'), ('kettle-2', 'Kettle 2', '°C');
COMMIT;
CREATE FUNCTION pipeline.load_readings() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  since  timestamptz;
  latest timestamptz;
  loaded bigint;
BEGIN
  SELECT up_to INTO since FROM pipeline.watermark WHERE source = 'readings' FOR UPDATE;
  SELECT max(changed) INTO latest FROM plant.readings WHERE changed > since;
  INSERT INTO datapoints (external_id, "timestamp", value)
  SELECT tag, at, value FROM plant.readings WHERE changed > since AND changed <= latest;
  GET DIAGNOSTICS loaded = ROW_COUNT;
  UPDATE pipeline.watermark SET up_to = coalesce(latest, up_to) WHERE source = 'readings';
  INSERT INTO extraction_pipeline_runs (external_id, status, message)
  VALUES ('brewery-readings', CASE WHEN latest IS NULL THEN 'seen' ELSE 'success' END, loaded || ' points');
  RETURN loaded;
END $$;
SELECT pipeline.load_readings();
SELECT pipeline.load_readings();
