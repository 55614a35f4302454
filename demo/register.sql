-- Credentials go in once. CDF is asked whether they work before anything is created.
SELECT username, password, database, schema
FROM cdf_register_credentials(
  token_url     => :'token_url',
  client_id     => :'client_id',
  client_secret => :'client_secret',
  scope         => :'scope',
  project       => :'project',
  username      => 'weather_loader');
