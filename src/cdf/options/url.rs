//! Checks the URLs that requests go to: those of a cluster, an identity provider, and a proxy.

use url::{Host, Url};

use super::errors::invalid;
use super::registry::{Takes, OPTIONS};
use crate::cdf::error::Error;

/// Parses a URL that requests go to. Errors do not quote it, because it may hold a password.
pub fn parse_url(name: &str, value: &str, query: bool, allow_http: bool) -> Result<Url, Error> {
    let example = "Give a URL such as https://westeurope-1.cognitedata.com.";
    let url = Url::parse(value).map_err(|error| invalid(name, &error.to_string()).hint(example))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(invalid(name, &format!("unknown scheme \"{}\"", url.scheme())).hint(example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(name, "a URL with a user name or password")
            .hint("Credentials belong to the options client_id and client_secret of the user mapping."));
    }
    if name == BASE_URL {
        check_base_url(&url)?;
    }
    if url.fragment().is_some() || (url.query().is_some() && !query) {
        return Err(invalid(name, "a URL with a query or fragment").hint(example));
    }
    if url.scheme() == "http" && !allow_http && !is_loopback(&url) {
        return Err(invalid(name, &format!("http:// to host \"{}\"", url.host_str().unwrap_or_default()))
            .detail("Credentials and rows would cross the network unencrypted.")
            .hint("Use https://, or have a superuser set cdf_fdw.allow_http."));
    }
    Ok(url)
}

/// Parses the address of a proxy. It carries only what is encrypted; but to one of http:// it is said unencrypted which hosts
/// are called.
pub fn parse_proxy(name: &str, value: &str, allow_http: bool) -> Result<Url, Error> {
    let example = "Give an address such as https://proxy.example.com:3128.";
    let url = Url::parse(value).map_err(|error| invalid(name, &error.to_string()).hint(example))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(invalid(name, &format!("unknown scheme \"{}\"", url.scheme())).hint(example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(name, "a URL with a user name or password")
            .detail("Everybody may read the options of a server.")
            .hint("Let the proxy know this machine by its address."));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(name, "a URL with a path, a query or a fragment").hint(example));
    }
    if url.scheme() == "http" && !allow_http && !is_loopback(&url) {
        return Err(invalid(name, &format!("http:// to host \"{}\"", url.host_str().unwrap_or_default()))
            .detail("Which hosts are called would be told to the proxy unencrypted.")
            .hint(
                "Use https://, have a superuser set cdf_fdw.allow_http, or start PostgreSQL with the proxy in the environment \
                 variable HTTPS_PROXY.",
            ));
    }
    Ok(url)
}

const BASE_URL: &str = "base_url";

/// Refuses addresses inside CDF's API or of its web application, and scopes: requests append their paths to the address
/// of the cluster. A path before that of the API may be a proxy's.
fn check_base_url(url: &Url) -> Result<(), Error> {
    // The parser has lower-cased host names.
    let host = url.host_str().unwrap_or_default();
    if host == "fusion.cognite.com" || host.ends_with(".fusion.cognite.com") {
        let cluster = url.query_pairs().find(|(name, _)| name == "cluster").map(|(_, cluster)| cluster);
        let is_host =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        let cluster = cluster.filter(|name| name.contains('.') && is_host(name));
        let right = cluster.as_deref().unwrap_or("westeurope-1.cognitedata.com");
        return Err(invalid(BASE_URL, "the address of the web application, not of the API")
            .hint(format!("Give the address of the cluster: https://{right}.")));
    }
    let segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let is_version = |at: usize| {
        segments.get(at).is_none_or(|segment| {
            let mut rest = segment.chars().skip(1);
            segment.starts_with(['v', 'V']) && rest.next().is_some_and(|digit| digit.is_ascii_digit())
                || segment.eq_ignore_ascii_case("playground")
                || segment.eq_ignore_ascii_case("projects")
        })
    };
    let api = (0..segments.len())
        .find(|at| segments[*at].eq_ignore_ascii_case("api") && is_version(at + 1))
        .or_else(|| segments.iter().position(|segment| *segment == ".default" || *segment == "oauth2"))
        .or_else(|| segments.windows(2).position(|pair| pair[0] == "v1" && pair[1] == "projects"))
        .or_else(|| {
            segments.iter().position(|segment| *segment == "v1").filter(|at| at + 1 == segments.len())
        });
    let Some(api) = api else {
        // A server's address has no query or fragment. Errors do not quote them, because they might hold a password.
        return if url.query().is_some() || url.fragment().is_some() {
            Err(invalid(BASE_URL, "a URL with a query or fragment")
                .hint(format!("Give only the address of the cluster: {}.", address(url, &segments))))
        } else {
            Ok(())
        };
    };
    Err(invalid(
        BASE_URL,
        &format!("it goes on with /{}, which requests have in their paths", segments[api..].join("/")),
    )
    .hint(format!("Give only the address of the cluster: {}.", address(url, &segments[..api]))))
}

/// Returns scheme, host, port, and part of the path.
fn address(url: &Url, segments: &[&str]) -> String {
    let mut address = url.origin().ascii_serialization();
    for segment in segments {
        address.push('/');
        address.push_str(segment);
    }
    address
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Parses a URL under the rules of the option of this name.
///
/// # Errors
/// `InvalidOption`.
pub fn parse_named(name: &'static str, value: &str, allow_http: bool) -> Result<Url, Error> {
    let query = OPTIONS.iter().any(|o| o.name == name && matches!(o.takes, Takes::Url { query: true }));
    parse_url(name, value, query, allow_http)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_and_no_more() {
        for text in
            ["http://127.0.0.1:1", "http://localhost", "https://proxy.example.com", "http://[::1]:8080/"]
        {
            assert!(parse_proxy("proxy", text, false).is_ok(), "{text}");
        }
        for text in ["http://proxy:3128", "http://10.0.0.1/", "http://localhost.example.com"] {
            let error = parse_proxy("proxy", text, false).unwrap_err();
            assert!(error.hint.as_deref().unwrap().contains("HTTPS_PROXY"), "{text}");
            assert!(parse_proxy("proxy", text, true).is_ok(), "{text}");
        }
        for text in [
            "",
            "proxy:3128",
            "socks5://p",
            "http://u@p",
            "http://u:s3cret@p",
            "http://p/x",
            "http://p?x",
            "http://p#x",
        ] {
            let error = parse_proxy("proxy", text, true).unwrap_err();
            assert!(!format!("{error:?}").contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn http_is_for_loopback_unless_allowed() {
        let url = |text: &str, allow_http| parse_url("base_url", text, false, allow_http);
        for text in
            ["http://localhost:1", "http://LOCALHOST", "http://127.8.9.10", "http://[::1]:80", "https://x.y"]
        {
            assert!(url(text, false).is_ok(), "{text}");
        }
        for text in
            ["http://x.y", "http://localhost.x.y", "http://10.0.0.1", "http://[::2]", "http://128.0.0.1"]
        {
            assert!(url(text, false).unwrap_err().hint.as_deref().unwrap().contains("allow_http"), "{text}");
            assert!(url(text, true).is_ok(), "{text}");
        }
        for text in ["", "x.y", "ftp://x.y", "https://", "https://x.y/?q=1", "https://x.y/#f"] {
            assert!(url(text, true).is_err(), "{text}");
        }
    }
}
