//! The server's options, and the checks on them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use tokio_postgres::config::Host as DatabaseHost;
use url::{Host, Url};

/// The identity providers that CDF's customers use.
const WELL_KNOWN_TOKEN_HOSTS: [&str; 4] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "auth.cognite.com",
];

/// Registers roles of a PostgreSQL with cdf_fdw over HTTP, as Cognite's hosted PostgreSQL gateway does.
#[derive(Parser)]
#[command(name = "cdf-gateway-api", version)]
pub struct Options {
    /// Address and port to listen on. If other machines can reach it, --tls-cert and --tls-key are required.
    #[arg(long, env = "CDF_GATEWAY_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// The PostgreSQL: postgresql://role:password@host:port/database, on this machine.
    #[arg(long, env = "CDF_GATEWAY_DATABASE", hide_env_values = true)]
    pub database: String,
    /// The CDF cluster, such as https://westeurope-1.cognitedata.com.
    #[arg(long, env = "CDF_GATEWAY_CDF_URL")]
    pub cdf_url: String,
    /// The host that users are told to connect to.
    #[arg(long, env = "CDF_GATEWAY_HOST", default_value = "localhost")]
    pub host: String,
    /// The certificate, with those of the authorities that signed it: a PEM file.
    #[arg(long, env = "CDF_GATEWAY_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key: a PEM file.
    #[arg(long, env = "CDF_GATEWAY_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A host, or host:port, that a token_url may name; can be given several times. Default: the well-known ones of Entra
    /// and Cognite, and this machine if --listen is on this machine.
    #[arg(long, env = "CDF_GATEWAY_TOKEN_HOST", value_delimiter = ',')]
    pub token_host: Vec<String>,
    /// Requests per second that one address may make; the first ones may come four times as fast.
    #[arg(long, env = "CDF_GATEWAY_RATE", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// A file to write the port to, once the server listens.
    #[arg(long, env = "CDF_GATEWAY_PORT_FILE")]
    pub port_file: Option<PathBuf>,
}

/// The options, checked.
pub struct Config {
    pub addresses: Vec<SocketAddr>,
    pub database: tokio_postgres::Config,
    pub cdf_url: Url,
    pub host: String,
    pub tls: Option<(PathBuf, PathBuf)>,
    pub token_hosts: TokenHosts,
    pub rate: u32,
    pub port_file: Option<PathBuf>,
}

impl Config {
    /// Checks the options.
    ///
    /// # Errors
    /// In words, without a secret.
    pub async fn check(options: Options) -> Result<Config, String> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&options.listen)
            .await
            .map_err(|error| format!("--listen {}: {error}", options.listen))?
            .collect();
        let on_loopback = addresses.iter().all(|address| address.ip().is_loopback());
        let tls = options.tls_cert.zip(options.tls_key);
        if !on_loopback && tls.is_none() {
            return Err(format!(
                "--listen {} can be reached from other machines: give --tls-cert and --tls-key, since secrets go over it, or \
                 listen on 127.0.0.1",
                options.listen
            ));
        }
        Ok(Config {
            database: database(&options.database)?,
            cdf_url: cdf_url(&options.cdf_url)?,
            host: options.host,
            token_hosts: TokenHosts::new(&options.token_host, on_loopback)?,
            rate: options.rate,
            port_file: options.port_file,
            addresses,
            tls,
        })
    }
}

/// Parses the URL. The parser's message about a wrong URL is not repeated, because the URL contains a password.
fn database(url: &str) -> Result<tokio_postgres::Config, String> {
    let config: tokio_postgres::Config = url.parse().map_err(|_| {
        "--database is not a PostgreSQL URL such as postgresql://role:password@127.0.0.1/database".to_owned()
    })?;
    let is_here = |host: &DatabaseHost| match host {
        DatabaseHost::Unix(_) => true,
        DatabaseHost::Tcp(name) => is_loopback_name(name),
    };
    if !config.get_hosts().iter().all(is_here) || config.get_hosts().is_empty() {
        return Err("--database must be on this machine: secrets go there without TLS".to_owned());
    }
    Ok(config)
}

fn cdf_url(text: &str) -> Result<Url, String> {
    let refused =
        |why: &str| Err(format!("--cdf-url: {why}; give one such as https://westeurope-1.cognitedata.com"));
    let Ok(url) = Url::parse(text) else { return refused("not a URL") };
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        return refused("https is needed, except to this machine");
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return refused("it may only have a scheme, a host, a port and a path");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.') == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where tokens may be asked for. The PostgreSQL server sends a request to whatever token_url it gets: without this
/// list, everybody with a token of CDF could make it call any address that it can reach.
#[derive(Debug, Clone)]
pub struct TokenHosts {
    /// Host and port; without a port, that of the scheme.
    named: Vec<(String, Option<u16>)>,
    loopback: bool,
}

/// Why a token_url is refused.
#[derive(Debug, PartialEq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TokenHosts {
    fn new(given: &[String], on_loopback: bool) -> Result<TokenHosts, String> {
        let given: Vec<&str> = given.iter().map(|host| host.trim()).filter(|host| !host.is_empty()).collect();
        let names = if given.is_empty() { WELL_KNOWN_TOKEN_HOSTS.to_vec() } else { given.clone() };
        let named = names
            .into_iter()
            .map(|name| {
                let url = Url::parse(&format!("https://{name}"));
                match url {
                    Ok(url) if url.path() == "/" && url.query().is_none() && url.username().is_empty() => {
                        Ok((url.host_str().unwrap_or_default().to_owned(), url.port()))
                    }
                    _ => Err(format!("--token-host {name}: give a host, or host:port")),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(TokenHosts { named, loopback: given.is_empty() && on_loopback })
    }

    /// Checks whether tokens may be asked for at this URL. The error does not quote it, since it may contain a
    /// password.
    pub fn check(&self, token_url: &str) -> Result<(), Refused> {
        let refused = |why: &str| Err(Refused(format!("token_url {why}")));
        let Ok(url) = Url::parse(token_url) else { return refused("is not a URL") };
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return refused("has a user, a password or a fragment");
        }
        let here = is_loopback(&url);
        if url.scheme() != "https" && !(url.scheme() == "http" && here) {
            return refused("is not an https URL");
        }
        let host = url.host_str().unwrap_or_default();
        let is_named = self.named.iter().any(|(name, port)| name == host && *port == url.port());
        if is_named || here && self.loopback {
            return Ok(());
        }
        let names: Vec<String> = self
            .named
            .iter()
            .map(|(name, port)| port.map_or_else(|| name.clone(), |port| format!("{name}:{port}")))
            .collect();
        refused(&format!("names no identity provider that this gateway knows; it knows {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(given: &[&str], loopback: bool) -> TokenHosts {
        let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
        TokenHosts::new(&given, loopback).unwrap()
    }

    #[test]
    fn only_known_identity_providers() {
        let default = hosts(&[], false);
        for url in
            ["https://login.microsoftonline.com/t/oauth2/v2.0/token", "https://LOGIN.microsoftonline.com/t"]
        {
            assert_eq!(default.check(url), Ok(()), "{url}");
        }
        for url in [
            "http://login.microsoftonline.com/t",
            "https://login.microsoftonline.com:8443/t",
            "https://login.microsoftonline.com.evil.example/t",
            "https://login.microsoftonline.com@evil.example/t",
            "https://evil.example/?login.microsoftonline.com",
            "https://evil.example\\@login.microsoftonline.com/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::ffff:169.254.169.254]/",
            "http://127.0.0.1/token",
            "https://localhost/token",
            "file:///etc/passwd",
            "gopher://login.microsoftonline.com/",
            "",
            "login.microsoftonline.com",
        ] {
            assert!(default.check(url).is_err(), "{url}");
        }
        let here = hosts(&[], true);
        for url in [
            "http://127.0.0.1:1234/token",
            "http://localhost/t",
            "http://[::1]:1/t",
            "https://auth.cognite.com/t",
        ] {
            assert_eq!(here.check(url), Ok(()), "{url}");
        }
        assert!(here.check("http://127.0.0.1.example/t").is_err());
    }

    #[test]
    fn named_hosts_are_instead_of_the_well_known_ones() {
        let named = hosts(&["idp.example", "other.example:8443"], true);
        assert_eq!(named.check("https://idp.example/t"), Ok(()));
        assert_eq!(named.check("https://other.example:8443/t"), Ok(()));
        for url in [
            "https://other.example/t",
            "https://idp.example:1/t",
            "http://127.0.0.1/t",
            "https://auth.cognite.com/t",
        ] {
            assert!(named.check(url).is_err(), "{url}");
        }
        assert!(TokenHosts::new(&["a/b".to_owned()], true).is_err());
    }

    #[test]
    fn a_refusal_does_not_repeat_the_url() {
        let why = hosts(&[], false).check("https://u:geheim@evil.example/?k=geheim").unwrap_err();
        assert!(!why.to_string().contains("geheim"), "{why}");
    }

    #[test]
    fn the_database_is_on_this_machine_and_its_password_in_no_error() {
        assert!(database("postgresql://a:b@127.0.0.1/c").is_ok());
        assert!(database("host=/run/postgresql user=a dbname=c").is_ok());
        for url in [
            "postgresql://a:geheim@db.example/c",
            "postgresql://a:geheim@[/c",
            "user=a password='geheim",
            "user=a",
        ] {
            let why = database(url).err().unwrap_or_default();
            assert!(!why.is_empty() && !why.contains("geheim"), "{url}: {why}");
        }
    }

    #[test]
    fn cdf_is_reached_by_https_or_here() {
        assert!(cdf_url("https://westeurope-1.cognitedata.com").is_ok());
        assert!(cdf_url("http://127.0.0.1:8000/").is_ok());
        for url in ["http://westeurope-1.cognitedata.com", "x", "https://u@c.example", "https://c.example/?q"]
        {
            assert!(cdf_url(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn others_reach_it_by_tls_only() {
        let options = |more: &[&str]| {
            let given = ["x", "--database", "postgresql://a@127.0.0.1/c", "--cdf-url", "https://c.example"];
            Options::try_parse_from(given.iter().chain(more))
        };
        assert!(Config::check(options(&["--listen", "127.0.0.1:0"]).unwrap()).await.is_ok());
        assert!(Config::check(options(&["--listen", "[::1]:0"]).unwrap()).await.is_ok());
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
            let why = Config::check(options(&["--listen", address]).unwrap()).await.err().unwrap();
            assert!(why.contains("--tls-cert"), "{why}");
        }
        let with = ["--listen", "0.0.0.0:0", "--tls-cert", "c", "--tls-key", "k"];
        assert!(Config::check(options(&with).unwrap()).await.is_ok());
        assert!(options(&["--tls-cert", "c"]).is_err());
    }
}
