//! Checks options: which there are in a place, what they are set to, and what goes together.

use super::errors::missing;
use super::registry::{Descriptor, Holder, Tables, ASSERTION_FILE, OPTIONS};
use super::values::check_value;
use crate::cdf::error::{Error, Kind};
use crate::cdf::resource::Resource;

/// Why options are refused; each reason has its SQLSTATE.
#[derive(Debug, PartialEq)]
pub enum BadOption {
    /// HV00D: the option does not exist here.
    Name(Error),
    /// HV00J: its value cannot be used, or is missing.
    Value(Error),
}

impl From<Error> for BadOption {
    fn from(error: Error) -> Self {
        BadOption::Value(error)
    }
}

/// Checks all options that an object is going to have, given as name and value. `place`: what they are set on; None is the
/// wrapper itself.
///
/// # Errors
/// What is wrong with the first of them that is wrong.
pub fn check(place: Option<Holder>, pairs: &[(&str, &str)], allow_http: bool) -> Result<(), BadOption> {
    let Some(place) = place else {
        return match pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(unknown(name, "the foreign-data wrapper", "It takes no options.".into())),
        };
    };
    for (name, _) in pairs {
        if !OPTIONS.iter().any(|option| option.name == *name && option.holders.contains(&place)) {
            let valid = format!("Valid options of {} are: {}.", place.noun(), names(place, |_| true));
            return Err(unknown(name, place.noun(), valid));
        }
    }
    for option in OPTIONS.iter().filter(|option| option.holders.contains(&place)) {
        match pairs.iter().find(|(name, _)| *name == option.name) {
            Some((_, value)) => check_value(option, value, allow_http)?,
            None if option.required => return Err(missing(option.name, place.noun()).into()),
            None => {}
        }
    }
    match place {
        Holder::Table => check_table(pairs)?,
        Holder::UserMapping => check_mapping(pairs)?,
        Holder::Server | Holder::Column => {}
    }
    Ok(())
}

/// Checks how a mapping gets its tokens: with a client's secret or assertion, or with a session.
fn check_mapping(pairs: &[(&str, &str)]) -> Result<(), BadOption> {
    const CLIENT: [&str; 7] =
        ["token_url", "client_id", "client_secret", "scope", "audience", "token_auth", ASSERTION_FILE];
    const SESSION: [&str; 2] = ["session_id", "session_key"];
    let is_given = |name: &&&str| pairs.iter().any(|(given, _)| *given == **name);
    let exclude = |one: &str, other: &str| {
        Error::new(Kind::InvalidOption, format!("options \"{one}\" and \"{other}\" exclude each other"))
    };
    let lacks = |name: &str| {
        missing(name, Holder::UserMapping.noun()).hint(
            "A user mapping has token_url, client_id and client_secret (or client_assertion_file in its place), or else session_id \
             and session_key.",
        )
    };
    let needs = |names: &[&'static str]| {
        names.iter().find(|name| !is_given(name)).map_or(Ok(()), |name| Err(lacks(name)))
    };
    if let Some(of_session) = SESSION.iter().find(is_given) {
        if let Some(of_client) = CLIENT.iter().find(is_given) {
            return Err(exclude(of_client, of_session)
                .hint("A session needs neither client nor identity provider.")
                .into());
        }
        let beside = |name: &str| SESSION.into_iter().find(|other| *other != name).unwrap_or_default();
        return match SESSION.iter().find(|name| !is_given(name)) {
            Some(name) => Err(Error::new(
                Kind::InvalidOption,
                format!("option \"{name}\" is required beside \"{}\"", beside(name)),
            )
            .hint("A session of CDF has both. They come with the answer that its nonce is exchanged for.")
            .into()),
            None => Ok(()),
        };
    }
    needs(&["token_url", "client_id"])?;
    if !is_given(&&ASSERTION_FILE) {
        return Ok(needs(&["client_secret"])?);
    }
    match ["client_secret", "token_auth"].iter().find(is_given) {
        Some(name) => {
            Err(exclude(name, ASSERTION_FILE).hint("An assertion is sent instead of a secret.").into())
        }
        None => Ok(()),
    }
}

/// Checks a table's options against its resource. Each option is valid by itself.
fn check_table(pairs: &[(&str, &str)]) -> Result<(), BadOption> {
    let given = |name: &str| pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
    let resource = Resource::get(given("resource").unwrap_or_default())?;
    for (name, _) in pairs {
        if OPTIONS.iter().any(|option| option.name == *name && !option.tables.include(resource)) {
            let place = format!("a table of {}", resource.name);
            let valid = names(Holder::Table, |option| option.tables.include(resource));
            return Err(unknown(name, &place, format!("Valid options of {place} are: {valid}.")));
        }
    }
    if resource.is_behind_view() {
        for name in ["space", "external_id"] {
            if given(name).is_none() {
                return Err(missing(name, "a table of view").into());
            }
        }
    }
    if given("database").is_some() != given("table").is_some() {
        return Err(Error::new(Kind::InvalidOption, "options \"database\" and \"table\" go together")
            .hint("Give both for a typed RAW table, neither for db_name, table_name, key and columns.")
            .into());
    }
    if given("primary_key").is_some() && given("database").is_none() {
        return Err(Error::new(
            Kind::InvalidOption,
            "option \"primary_key\" needs \"database\" and \"table\"",
        )
        .hint("Without them the row key is the column key.")
        .into());
    }
    Ok(())
}

/// Returns the names of the options of an object, as errors list them.
fn names(place: Holder, which: impl Fn(&Descriptor) -> bool) -> String {
    let names: Vec<&str> =
        OPTIONS.iter().filter(|o| o.holders.contains(&place) && which(o)).map(|option| option.name).collect();
    names.join(", ")
}

fn unknown(name: &str, place: &str, valid: String) -> BadOption {
    let error = Error::new(Kind::InvalidOption, format!("invalid option \"{name}\" for {place}")).hint(valid);
    let home = OPTIONS.iter().find(|option| option.name == name).map(|option| {
        let places: Vec<&str> = option.holders.iter().map(|place| place.noun()).collect();
        match option.tables {
            Tables::All => places.join(" or of "),
            Tables::Raw => "a table of raw_rows".into(),
            Tables::Datapoints => "a table of datapoints or string_datapoints".into(),
            Tables::View => "a table of view".into(),
        }
    });
    BadOption::Name(match home {
        Some(home) => error.detail(format!("It is an option of {home}.")),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: [(&str, &str); 4] = [
        ("project", "p"),
        ("token_url", "https://login.example.com/t/oauth2/v2.0/token"),
        ("client_id", "id"),
        ("client_secret", "s3cret"),
    ];

    fn name_error(place: Option<Holder>, pairs: &[(&str, &str)]) -> Error {
        match check(place, pairs, false) {
            Err(BadOption::Name(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn value_error(place: Holder, pairs: &[(&str, &str)]) -> Error {
        match check(Some(place), pairs, false) {
            Err(BadOption::Value(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unknown_and_misplaced_names_are_refused_with_the_valid_ones() {
        let error = name_error(Some(Holder::Server), &[("base_url", "https://x"), ("host", "x")]);
        assert_eq!(error.message, "invalid option \"host\" for a server");
        assert_eq!(
            error.hint.as_deref().unwrap(),
            "Valid options of a server are: base_url, ca_file, proxy, on_conflict, null_handling, updatable, on_unfit."
        );
        let error = name_error(Some(Holder::Server), &[("client_secret", "s3cret")]);
        assert_eq!(error.detail, ["It is an option of a user mapping."]);
        assert!(!format!("{error:?}").contains("s3cret"));
        assert_eq!(
            name_error(Some(Holder::Column), &[("updatable", "true")]).detail,
            ["It is an option of a foreign table or of a server."]
        );
        assert!(name_error(None, &[("x", "y")]).message.contains("foreign-data wrapper"));
        assert_eq!(check(None, &[], false), Ok(()));
    }

    #[test]
    fn options_of_other_resources_are_refused() {
        let error = name_error(Some(Holder::Table), &[("resource", "assets"), ("database", "d")]);
        assert_eq!(error.detail, ["It is an option of a table of raw_rows."]);
        assert!(!error.hint.as_deref().unwrap().contains("database"));
        let error = name_error(Some(Holder::Table), &[("resource", "raw_rows"), ("create_missing", "true")]);
        assert!(error.hint.as_deref().unwrap().contains("primary_key"));
        assert_eq!(
            check(
                Some(Holder::Table),
                &[("resource", "string_datapoints"), ("create_missing", "true")],
                false
            ),
            Ok(())
        );
    }

    #[test]
    fn raw_options_belong_together() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut all = vec![("resource", "raw_rows")];
            all.extend_from_slice(pairs);
            all
        };
        assert_eq!(
            check(
                Some(Holder::Table),
                &of(&[("database", "d"), ("table", "t"), ("primary_key", "k")]),
                false
            ),
            Ok(())
        );
        assert_eq!(check(Some(Holder::Table), &of(&[]), false), Ok(()));
        assert!(value_error(Holder::Table, &of(&[("database", "d")])).message.contains("go together"));
        assert!(value_error(Holder::Table, &of(&[("primary_key", "k")])).message.contains("needs"));
        let long = "d".repeat(33);
        let error =
            value_error(Holder::Table, &[("resource", "raw_rows"), ("database", &long), ("table", "t")]);
        assert!(error.hint.as_deref().unwrap().contains("32"));
    }

    #[test]
    fn values_are_checked() {
        assert!(value_error(Holder::Table, &[("resource", "asset")])
            .hint
            .as_deref()
            .unwrap()
            .contains("assets, events"));
        let error = value_error(Holder::Table, &[("resource", "assets"), ("on_conflict", "nothing")]);
        assert_eq!(error.hint.as_deref().unwrap(), "Allowed values are: update, error, ignore.");
        assert!(value_error(Holder::Table, &[("resource", "assets"), ("updatable", "maybe")])
            .message
            .contains("maybe"));
        assert!(value_error(Holder::Column, &[("name", "")]).message.contains("empty"));
        assert_eq!(
            check(Some(Holder::Table), &[("resource", "assets"), ("truncatable", "ON")], false),
            Ok(())
        );
    }

    #[test]
    fn required_options_are_missed() {
        assert!(value_error(Holder::Server, &[]).message.contains("base_url"));
        for (given, right) in [
            ("https://cdf.example/api/v1", "https://cdf.example"),
            ("https://cdf.example/api/v1/", "https://cdf.example"),
            ("https://cdf.example:8443/API/V1/projects/p", "https://cdf.example:8443"),
            ("https://cdf.example/proxy/api/v1", "https://cdf.example/proxy"),
            ("https://cdf.example/api", "https://cdf.example"),
            ("https://cdf.example/api/playground/projects/p", "https://cdf.example"),
            ("https://cdf.example/v1", "https://cdf.example"),
            ("https://cdf.example/.default", "https://cdf.example"),
            ("https://cdf.example?project=p", "https://cdf.example"),
            ("https://cdf.example/#p", "https://cdf.example"),
            ("https://fusion.cognite.com/p?cluster=az.cdf.example&x=y", "https://az.cdf.example"),
            ("https://acme.fusion.cognite.com/p", "https://westeurope-1.cognitedata.com"),
        ] {
            let error = value_error(Holder::Server, &[("base_url", given)]);
            let hint = error.hint.as_deref().unwrap_or_default();
            assert!(hint.ends_with(&format!(": {right}.")), "{given}: {error} {hint}");
        }
        for given in [
            "https://cdf.example",
            "https://cdf.example/",
            "https://cdf.example/proxy",
            "https://cdf.example/my-api/cdf",
        ] {
            assert!(check(Some(Holder::Server), &[("base_url", given)], false).is_ok(), "{given}");
        }
        assert!(value_error(Holder::Table, &[]).message.contains("resource"));
        for at in 0..MAPPING.len() {
            let mut pairs = MAPPING.to_vec();
            let (name, _) = pairs.remove(at);
            assert!(value_error(Holder::UserMapping, &pairs).message.contains(name));
        }
        assert_eq!(check(Some(Holder::UserMapping), &MAPPING, false), Ok(()));
    }

    #[test]
    fn a_mapping_gets_its_tokens_in_one_way() {
        let check = |pairs: &[(&str, &str)]| check(Some(Holder::UserMapping), pairs, false);
        let session = [("project", "p"), ("session_id", "17"), ("session_key", "k")];
        let assertion = [MAPPING[0], MAPPING[1], MAPPING[2], (ASSERTION_FILE, "/token")];
        assert_eq!(check(&session), Ok(()));
        assert_eq!(check(&assertion), Ok(()));
        assert_eq!(check(&[&MAPPING[..], &[("token_auth", "basic")]].concat()), Ok(()));
        assert_eq!(check(&[&assertion[..], &[("scope", "s"), ("audience", "a")]].concat()), Ok(()));
        for (pairs, word) in [
            (session[..2].to_vec(), "session_key"),
            (vec![session[0], session[2]], "session_id"),
            (vec![session[0]], "token_url"),
            (assertion[..3].to_vec(), "client_secret"),
            ([&session[..], &[("scope", "s")]].concat(), "exclude"),
            ([&session[..], &MAPPING[3..]].concat(), "exclude"),
            ([&assertion[..], &MAPPING[3..]].concat(), "exclude"),
            ([&assertion[..], &[("token_auth", "post")]].concat(), "exclude"),
            ([&MAPPING[..], &[("token_auth", "Basic")]].concat(), "token_auth"),
            (vec![session[0], ("session_id", "0"), session[2]], "session_id"),
            (vec![session[0], ("session_id", "+1"), session[2]], "session_id"),
            ([&assertion[..3], &[(ASSERTION_FILE, "token")]].concat(), ASSERTION_FILE),
            ([&MAPPING[..3], &[("client_secret", "sealed:v1:geheim")]].concat(), "client_secret"),
            ([&MAPPING[..3], &[("client_secret", "sealed:v2:geheim")]].concat(), "another version"),
        ] {
            let error = value_error(Holder::UserMapping, &pairs);
            assert!(error.message.contains(word) && !format!("{error:?}").contains("geheim"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        let mut pairs = MAPPING.to_vec();
        pairs[0].1 = "";
        assert!(!format!("{:?}", check(Some(Holder::UserMapping), &pairs, false)).contains("s3cret"));
        let error = value_error(Holder::Server, &[("base_url", "https://me:s3cret@example.com")]);
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}
