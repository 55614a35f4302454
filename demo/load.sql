-- One transaction: an asset hierarchy, the series, their points, the events, the raw file.
BEGIN;

INSERT INTO assets (external_id, name, parent_external_id, description, metadata) VALUES
  ('us-wa-seattle',         'Seattle',         NULL,            'City in Washington, USA', '{"country": "US"}'),
  ('us-wa-seattle-station', 'Weather station', 'us-wa-seattle', 'Daily observations, 2012 to 2015', '{"operator": "NOAA"}');

INSERT INTO timeseries (external_id, name, unit, asset_external_id) VALUES
  ('seattle-temp-max',      'Seattle, highest temperature of the day', '°C',  'us-wa-seattle-station'),
  ('seattle-temp-min',      'Seattle, lowest temperature of the day',  '°C',  'us-wa-seattle-station'),
  ('seattle-precipitation', 'Seattle, precipitation of the day',       'mm',  'us-wa-seattle-station'),
  ('seattle-wind',          'Seattle, mean wind speed of the day',     'm/s', 'us-wa-seattle-station');

-- Points by COPY: one line for each series and day.
\copy datapoints (external_id, "timestamp", value) FROM PROGRAM 'awk -F, -f demo/points.awk tests/data/seattle-weather.csv' WITH (FORMAT csv, HEADER)

-- The file as it is into RAW.
\copy seattle_days FROM 'tests/data/seattle-weather.csv' WITH (FORMAT csv, HEADER)

-- Events from a staging table, as ETL tools like to do it: days with snow, and storms.
CREATE TEMPORARY TABLE day (date date, precipitation float8, temp_max float8, temp_min float8, wind float8, weather text)
  ON COMMIT DROP;
\copy day FROM 'tests/data/seattle-weather.csv' WITH (FORMAT csv, HEADER)
INSERT INTO events (external_id, type, subtype, start_time, end_time, description, metadata, asset_external_ids)
SELECT 'seattle-' || kind || '-' || date, 'weather', kind,
       date::timestamp, date::timestamp + interval '1 day',
       format('%s: %s mm, %s to %s °C, wind %s m/s', initcap(kind), precipitation, temp_min, temp_max, wind),
       jsonb_build_object('precipitation_mm', precipitation, 'wind_m_s', wind),
       ARRAY['us-wa-seattle-station']
FROM day, LATERAL (VALUES ('snow', weather = 'snow'), ('storm', wind >= 8)) AS k (kind, applies)
WHERE applies;

-- CDF gets everything here. When COMMIT returns, CDF has acknowledged every row.
COMMIT;
