-- What CDF has now, read through the same tables.
SELECT external_id, name, parent_external_id, metadata FROM assets ORDER BY external_id;
SELECT external_id, name, unit FROM timeseries ORDER BY external_id;
SELECT external_id, count(*) AS points, min(value), max(value), min("timestamp")::date AS first, max("timestamp")::date AS last
FROM datapoints
WHERE external_id IN ('seattle-temp-max', 'seattle-temp-min', 'seattle-precipitation', 'seattle-wind')
GROUP BY external_id ORDER BY external_id;
SELECT subtype, count(*) AS events, min(start_time)::date AS first, max(start_time)::date AS last
FROM events WHERE type = 'weather' GROUP BY subtype ORDER BY subtype;
SELECT * FROM seattle_days WHERE date = '2012-01-18';
SELECT weather, count(*) AS days FROM seattle_days GROUP BY weather ORDER BY days DESC, weather;
