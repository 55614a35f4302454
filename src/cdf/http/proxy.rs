//! Which requests go through a proxy: those to https:// hosts, as the environment says. A request to an http:// URL, and
//! any to this machine itself, would show its secrets to the proxy, and never leaves through one.

use reqwest::{NoProxy, Proxy};
use url::Url;

use crate::cdf::error::{Error, Kind};

/// Where proxies for https:// are named, the first that is set counting.
const NAMED_IN: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// Where hosts are listed that none is used for.
const EXCEPT: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// This machine, in every notation; of names also what is below them.
const LOOPBACK: &str = "localhost,localhost.,127.0.0.0/8,::1,::ffff:127.0.0.0/104,0.0.0.0,::";

/// The proxy that some environment variables name, if any.
pub fn from(variable: impl Fn(&str) -> Option<String>) -> Option<Proxy> {
    let set = |names: &[&str]| names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    // One that is not to be understood is none, as for other programs.
    let proxy = Proxy::https(set(&NAMED_IN)?).ok()?;
    let except = set(&EXCEPT).unwrap_or_default();
    Some(proxy.no_proxy(NoProxy::from_string(&format!("{except},{LOOPBACK}"))))
}

/// The proxy that a server's option names.
///
/// # Errors
/// `InvalidOption` if no proxy can be at such a URL.
pub fn named(url: &Url) -> Result<Proxy, Error> {
    let proxy = Proxy::https(url.clone()).map_err(|_| {
        Error::new(
            Kind::InvalidOption,
            "the option proxy of the foreign server is not the address of a proxy",
        )
    })?;
    Ok(proxy.no_proxy(NoProxy::from_string(LOOPBACK)))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A port that tells of the first line of what comes in, and hangs up.
    fn listener() -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut line = String::new();
                let mut reader = BufReader::new(stream.unwrap());
                let _ = reader.read_line(&mut line);
                // Before the connection closes, which is all that the test waits for.
                let _ = sender.send(line.trim_end().to_owned());
            }
        });
        (address, receiver)
    }

    /// What a proxy gets to see of a request.
    fn seen_by(proxy: Option<Proxy>, seen: &mpsc::Receiver<String>, url: &str) -> Option<String> {
        let mut builder = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2));
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy);
        }
        let request = builder.build().unwrap().get(url).send();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(runtime.block_on(request).is_err());
        seen.try_recv().ok()
    }

    /// What the proxy gets to see of a request, with these variables, where `{}` is the proxy.
    fn seen_by_proxy(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let (address, seen) = listener();
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(set, _)| *set == name)?;
            Some(value.replace("{}", &address))
        };
        seen_by(from(variable), &seen, url)
    }

    #[test]
    fn a_named_proxy_carries_https_to_other_machines_only() {
        for (url, line) in [
            ("https://cdf.invalid/x", Some("CONNECT cdf.invalid:443 HTTP/1.1")),
            ("http://cdf.invalid/x", None),
            ("https://localhost:1/", None),
            ("https://127.0.0.1:1/", None),
            ("https://[::1]:1/", None),
        ] {
            let (address, seen) = listener();
            let proxy = named(&format!("http://{address}").parse().unwrap()).unwrap();
            assert_eq!(seen_by(Some(proxy), &seen, url).as_deref(), line, "{url}");
        }
    }

    #[test]
    fn https_goes_through_the_proxy_that_the_environment_names() {
        for variable in NAMED_IN {
            for value in ["http://{}", "{}"] {
                let seen = seen_by_proxy("https://cdf.invalid/x", &[(variable, value)]);
                assert_eq!(seen.as_deref(), Some("CONNECT cdf.invalid:443 HTTP/1.1"), "{variable} {value}");
            }
        }
        let both = [("HTTPS_PROXY", ""), ("ALL_PROXY", "http://{}"), ("NO_PROXY", "other.invalid")];
        assert!(seen_by_proxy("https://cdf.invalid/", &both).is_some());
    }

    #[test]
    fn what_the_environment_exempts_does_not() {
        for except in ["cdf.invalid", ".invalid", "*", "a, cdf.invalid"] {
            for name in EXCEPT {
                let variables = [("HTTPS_PROXY", "http://{}"), (name, except)];
                assert_eq!(seen_by_proxy("https://cdf.invalid/", &variables), None, "{name} {except}");
            }
        }
        assert_eq!(seen_by_proxy("https://cdf.invalid/", &[("HTTP_PROXY", "http://{}")]), None);
        assert_eq!(seen_by_proxy("https://cdf.invalid/", &[("HTTPS_PROXY", "no proxy :at all")]), None);
    }

    #[test]
    fn nothing_unencrypted_and_nothing_to_this_machine_goes_through_a_proxy() {
        let (http, all) = (("HTTP_PROXY", "http://{}"), ("ALL_PROXY", "http://{}"));
        let every =
            [http, all, ("http_proxy", "http://{}"), ("HTTPS_PROXY", "http://{}"), ("NO_PROXY", "other")];
        for url in [
            "http://cdf.invalid/",
            "http://127.0.0.1:1/",
            "http://localhost:1/",
            "https://localhost:1/",
            "https://LOCALHOST:1/",
            "https://localhost.:1/",
            "https://cdf.localhost:1/",
            "https://127.0.0.1:1/",
            "https://127.1:1/",
            "https://127.200.3.4:1/",
            "https://[::1]:1/",
            "https://[::ffff:127.0.0.1]:1/",
            "https://0.0.0.0:1/",
        ] {
            assert_eq!(seen_by_proxy(url, &every), None, "{url}");
        }
    }
}
