-- A load that is rolled back: nothing leaves this server.
BEGIN;
INSERT INTO events (external_id, type, description) VALUES ('never-happened', 'weather', 'A mistake');
INSERT INTO datapoints (external_id, "timestamp", value)
SELECT 'seattle-wind', '2016-01-01'::timestamp + n * interval '1 second', 999 FROM generate_series(1, 50000) AS n;
ROLLBACK;
SELECT count(*) AS events_called_never_happened FROM events WHERE external_id = 'never-happened';
