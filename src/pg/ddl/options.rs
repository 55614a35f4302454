//! The options of servers, user mappings, foreign tables and columns: which there are, what they take, and what they
//! come to for a table and for a connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_char;
use std::sync::Arc;

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use pgrx::{AnyArray, PgTupleDesc};
use secrecy::SecretString;
use url::{Host, Url};

use super::trust;
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::connection::Connection;
use crate::cdf::http::oidc::Credentials;
use crate::cdf::resource::{raw, Naming, Resource, Shape};
use crate::cdf::table::{
    ColumnDefinition, Mode, NullHandling, OnConflict, OnUnfit, Operation, Table, TableOptions,
};
use crate::cdf::view::ViewReference;
use crate::pg::errors::{raise, raise_as, OrRaise};
use crate::pg::list::pointers;
use crate::pg::modify::datum::holds_values;
use crate::pg::session::views;
use crate::pg::settings;
use crate::pg::text::{column_name, from_array, from_server};

/// What an option stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Server,
    UserMapping,
    Table,
    Column,
}

impl Place {
    /// As PostgreSQL tells a validator: by the catalog that will hold the options. None is the wrapper itself.
    fn of_catalog(catalog: pg_sys::Oid) -> Option<Place> {
        match catalog {
            pg_sys::ForeignServerRelationId => Some(Place::Server),
            pg_sys::UserMappingRelationId => Some(Place::UserMapping),
            pg_sys::ForeignTableRelationId => Some(Place::Table),
            pg_sys::AttributeRelationId => Some(Place::Column),
            _ => None,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Place::Server => "a server",
            Place::UserMapping => "a user mapping",
            Place::Table => "a foreign table",
            Place::Column => "a column",
        }
    }
}

/// What an option takes.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Text,
    /// Text of so many characters at most.
    Name(usize),
    Bool,
    /// `query`: whether the URL may have one.
    Url {
        query: bool,
    },
    OneOf(&'static [&'static str]),
    Resource,
}

/// Which tables have an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tables {
    All,
    Raw,
    Datapoints,
    View,
}

impl Tables {
    fn include(self, resource: &Resource) -> bool {
        match self {
            Tables::All => true,
            Tables::Raw => matches!(resource.shape, Shape::Raw),
            Tables::Datapoints => matches!(resource.shape, Shape::Datapoints { .. }),
            Tables::View => matches!(resource.shape, Shape::Instances { .. }),
        }
    }
}

#[derive(Debug)]
struct Descriptor {
    name: &'static str,
    places: &'static [Place],
    takes: Takes,
    required: bool,
    /// Never shown.
    secret: bool,
    /// Decides where secrets and tokens are sent.
    steers: bool,
    tables: Tables,
}

impl Descriptor {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn steers(mut self) -> Self {
        self.steers = true;
        self
    }

    const fn only(mut self, tables: Tables) -> Self {
        self.tables = tables;
        self
    }
}

const fn option(name: &'static str, places: &'static [Place], takes: Takes) -> Descriptor {
    Descriptor { name, places, takes, required: false, secret: false, steers: false, tables: Tables::All }
}

/// Every option there is, in the order in which errors list them.
static OPTIONS: &[Descriptor] = &[
    option("base_url", &[Place::Server], Takes::Url { query: false }).required().steers(),
    option("project", &[Place::UserMapping], Takes::Text).required(),
    option("token_url", &[Place::UserMapping], Takes::Url { query: true }).required().steers(),
    option("client_id", &[Place::UserMapping], Takes::Text).required(),
    option("client_secret", &[Place::UserMapping], Takes::Text).required().secret(),
    option("scope", &[Place::UserMapping], Takes::Text),
    option("audience", &[Place::UserMapping], Takes::Text),
    option("resource", &[Place::Table], Takes::Resource).required(),
    option("database", &[Place::Table], Takes::Name(raw::DATABASE_CHARS)).only(Tables::Raw),
    option("table", &[Place::Table], Takes::Name(raw::TABLE_CHARS)).only(Tables::Raw),
    option("primary_key", &[Place::Table], Takes::Text).only(Tables::Raw),
    option("space", &[Place::Table], Takes::Text).only(Tables::View),
    option("external_id", &[Place::Table], Takes::Text).only(Tables::View),
    option("version", &[Place::Table], Takes::Text).only(Tables::View),
    option("on_conflict", &[Place::Table, Place::Server], Takes::OneOf(OnConflict::NAMES)),
    option("null_handling", &[Place::Table, Place::Server], Takes::OneOf(NullHandling::NAMES)),
    option("create_missing", &[Place::Table], Takes::Bool).only(Tables::Datapoints),
    option("truncatable", &[Place::Table], Takes::Bool),
    option("updatable", &[Place::Table, Place::Server], Takes::Bool),
    option("on_unfit", &[Place::Column, Place::Table, Place::Server], Takes::OneOf(OnUnfit::NAMES)),
    option("name", &[Place::Column], Takes::Text),
];

/// The names of the options that hold a secret.
pub(in crate::pg) fn secrets() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|option| option.secret).map(|option| option.name)
}

/// The names of a server's options that decide where tokens and rows are sent.
pub(in crate::pg) fn steering_server() -> impl Iterator<Item = &'static str> {
    steering(Place::Server)
}

/// The names of a user mapping's options that decide where its secrets are sent.
pub(in crate::pg) fn steering_mapping() -> impl Iterator<Item = &'static str> {
    steering(Place::UserMapping)
}

fn steering(place: Place) -> impl Iterator<Item = &'static str> {
    let of_place = move |option: &&Descriptor| option.steers && option.places.contains(&place);
    OPTIONS.iter().filter(of_place).map(|option| option.name)
}

/// Why options are refused: by SQLSTATE.
#[derive(Debug, PartialEq)]
enum Refusal {
    /// HV00D: there is no such option in this place.
    Name(Error),
    /// HV00J: its value cannot be used, or it is missing.
    Value(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Value(error)
    }
}

/// The validator of the foreign-data wrapper: `options` are all that the object is going to have. Everybody may call it,
/// so it does nothing but to check them.
#[pg_extern]
fn cdf_fdw_validator(options: AnyArray, catalog: pg_sys::Oid, call: pg_sys::FunctionCallInfo) {
    let place = Place::of_catalog(catalog);
    // SAFETY: the extension's script declares an array of texts.
    let options = unsafe { from_array(options.datum()) }.or_raise();
    // PostgreSQL refuses option names with an equals sign in them.
    let pairs = options.iter().filter_map(|option| option.split_once('=')).collect::<Vec<_>>();
    match check(place, &pairs, settings::allow_http()) {
        Ok(()) => {}
        Err(Refusal::Name(error)) => raise_as(PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME, error),
        Err(Refusal::Value(error)) => raise(error),
    }
    // SAFETY: the call's own information. A command calls the validator without an expression, unlike a query.
    let by_command = unsafe { (*(*call).flinfo).fn_expr.is_null() };
    if place == Some(Place::UserMapping) && by_command {
        trust::check_new_mapping(&pairs).or_raise();
    }
}

fn check(place: Option<Place>, pairs: &[(&str, &str)], allow_http: bool) -> Result<(), Refusal> {
    let Some(place) = place else {
        return match pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(unknown(name, "the foreign-data wrapper", "It takes no options.".into())),
        };
    };
    for (name, _) in pairs {
        if !OPTIONS.iter().any(|option| option.name == *name && option.places.contains(&place)) {
            let valid = format!("Valid options of {} are: {}.", place.noun(), names(place, |_| true));
            return Err(unknown(name, place.noun(), valid));
        }
    }
    for option in OPTIONS.iter().filter(|option| option.places.contains(&place)) {
        match pairs.iter().find(|(name, _)| *name == option.name) {
            Some((_, value)) => check_value(option, value, allow_http)?,
            None if option.required => return Err(missing(option.name, place.noun()).into()),
            None => {}
        }
    }
    if place == Place::Table {
        check_table(pairs)?;
    }
    Ok(())
}

/// What the resource of a table has to say about the other options, each of them valid by itself.
fn check_table(pairs: &[(&str, &str)]) -> Result<(), Refusal> {
    let given = |name: &str| pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
    let resource = Resource::get(given("resource").unwrap_or_default())?;
    for (name, _) in pairs {
        if OPTIONS.iter().any(|option| option.name == *name && !option.tables.include(resource)) {
            let place = format!("a table of {}", resource.name);
            let valid = names(Place::Table, |option| option.tables.include(resource));
            return Err(unknown(name, &place, format!("Valid options of {place} are: {valid}.")));
        }
    }
    if matches!(resource.shape, Shape::Instances { .. }) {
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

fn check_value(option: &Descriptor, value: &str, allow_http: bool) -> Result<(), Error> {
    match option.takes {
        Takes::Text | Takes::Name(_) | Takes::Resource if value.is_empty() => {
            Err(invalid(option.name, "an empty text"))
        }
        Takes::Name(max) if value.chars().count() > max => {
            Err(invalid(option.name, &shown(option, value))
                .hint(format!("CDF takes at most {max} characters.")))
        }
        Takes::Text | Takes::Name(_) => Ok(()),
        Takes::Bool => parse_bool(option.name, value).map(drop),
        Takes::Url { query } => parse_url(option.name, value, query, allow_http).map(drop),
        Takes::OneOf(allowed) if !allowed.contains(&value) => {
            Err(invalid(option.name, &shown(option, value))
                .hint(format!("Allowed values are: {}.", allowed.join(", "))))
        }
        Takes::OneOf(_) => Ok(()),
        Takes::Resource => Resource::get(value).map(drop),
    }
}

fn shown(option: &Descriptor, value: &str) -> String {
    if option.secret {
        "(not shown)".into()
    } else {
        format!("\"{value}\"")
    }
}

/// The names of a place's options, as errors list them.
fn names(place: Place, which: impl Fn(&Descriptor) -> bool) -> String {
    let names: Vec<&str> =
        OPTIONS.iter().filter(|o| o.places.contains(&place) && which(o)).map(|option| option.name).collect();
    names.join(", ")
}

fn unknown(name: &str, place: &str, valid: String) -> Refusal {
    let error = Error::new(Kind::InvalidOption, format!("invalid option \"{name}\" for {place}")).hint(valid);
    let home = OPTIONS.iter().find(|option| option.name == name).map(|option| {
        let places: Vec<&str> = option.places.iter().map(|place| place.noun()).collect();
        match option.tables {
            Tables::All => places.join(" or of "),
            Tables::Raw => "a table of raw_rows".into(),
            Tables::Datapoints => "a table of datapoints or string_datapoints".into(),
            Tables::View => "a table of view".into(),
        }
    });
    Refusal::Name(match home {
        Some(home) => error.detail(format!("It is an option of {home}.")),
        None => error,
    })
}

fn missing(name: &str, place: &str) -> Error {
    Error::new(Kind::InvalidOption, format!("option \"{name}\" is required for {place}"))
}

fn invalid(name: &str, value: &str) -> Error {
    Error::new(Kind::InvalidOption, format!("invalid value for option \"{name}\": {value}"))
}

fn parse_bool(name: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(invalid(name, &format!("\"{value}\"")).hint("Allowed values are: true, false.")),
    }
}

/// Checks a URL that requests go to. Its text is not repeated in errors: it may hold a password.
fn parse_url(name: &str, value: &str, query: bool, allow_http: bool) -> Result<Url, Error> {
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

const BASE_URL: &str = "base_url";

/// Refuses addresses that are somewhere in CDF's API, in its web application, or a scope: all paths are appended to the
/// address of the cluster. What stands before the API may be a proxy's.
fn check_base_url(url: &Url) -> Result<(), Error> {
    // The parser has lower-case names of hosts.
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
        // A query or a fragment is none of a server's address, whatever is in it; a password might be.
        return match url.query().is_some() || url.fragment().is_some() {
            true => Err(invalid(BASE_URL, "a URL with a query or fragment")
                .hint(format!("Give only the address of the cluster: {}.", address(url, &segments)))),
            false => Ok(()),
        };
    };
    Err(invalid(
        BASE_URL,
        &format!("it goes on with /{}, which requests have in their paths", segments[api..].join("/")),
    )
    .hint(format!("Give only the address of the cluster: {}.", address(url, &segments[..api]))))
}

/// Scheme, host, port, and a part of the path.
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

/// A URL under an option's rules, by the option's name.
pub(in crate::pg) fn url(name: &'static str, value: &str) -> Result<Url, Error> {
    let query = OPTIONS.iter().any(|o| o.name == name && matches!(o.takes, Takes::Url { query: true }));
    parse_url(name, value, query, settings::allow_http())
}

/// Options as the catalogs hold them.
pub(in crate::pg) struct Stored(Vec<(String, String)>);

impl Stored {
    /// # Safety
    /// `list` is a List of DefElem, as GetForeignServer and its like return them.
    pub(in crate::pg) unsafe fn read(list: *mut pg_sys::List) -> Stored {
        let text = |text: *const c_char| {
            // SAFETY: a DefElem's name is NUL-terminated, and so is what defGetString makes of its value.
            unsafe { from_server(text) }
        };
        // SAFETY: the caller's promise.
        let elements = unsafe { pointers::<pg_sys::DefElem>(list) };
        let pairs = elements
            .iter()
            // SAFETY: as above; the options of a foreign object have values, which are strings.
            .map(|element| unsafe { (text((**element).defname), text(pg_sys::defGetString(*element))) })
            .collect();
        Stored(pairs)
    }

    pub(in crate::pg) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// The validator requires it, but a wrapper may have been without one.
    fn required(&self, name: &str, place: Place) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| missing(name, place.noun()))
    }
}

/// The server of a foreign table and the table's options, the server's applied where the table has none.
fn table(relid: pg_sys::Oid) -> Result<(pg_sys::Oid, TableOptions), Error> {
    // SAFETY: both look the object up in the catalogs and raise an error if it is not there; what they return is
    // allocated in the current memory context.
    let (server, stored, defaults) = unsafe {
        let table = pg_sys::GetForeignTable(relid);
        let server = pg_sys::GetForeignServer((*table).serverid);
        ((*server).serverid, Stored::read((*table).options), Stored::read((*server).options))
    };
    let either = |name: &str| stored.get(name).or_else(|| defaults.get(name));
    let one_of = |name: &str, value: &str, allowed: &[&str]| {
        invalid(name, &format!("\"{value}\"")).hint(format!("Allowed values are: {}.", allowed.join(", ")))
    };
    let flag = |name: &str, value: Option<&str>, default: bool| match value {
        Some(value) => parse_bool(name, value),
        None => Ok(default),
    };
    let on_conflict = match either("on_conflict") {
        Some(value) => {
            OnConflict::parse(value).ok_or_else(|| one_of("on_conflict", value, OnConflict::NAMES))?
        }
        None => OnConflict::default(),
    };
    let null_handling = match either("null_handling") {
        Some(value) => {
            NullHandling::parse(value).ok_or_else(|| one_of("null_handling", value, NullHandling::NAMES))?
        }
        None => NullHandling::default(),
    };
    let options = TableOptions {
        resource: Resource::get(stored.required("resource", Place::Table)?)?,
        database: stored.text("database"),
        table: stored.text("table"),
        primary_key: stored.text("primary_key"),
        view: match (stored.text("space"), stored.text("external_id")) {
            (Some(space), Some(external_id)) => {
                Some(ViewReference { space, external_id, version: stored.text("version") })
            }
            _ => None,
        },
        mode: Mode {
            operation: Operation::Upsert,
            on_conflict,
            null_handling,
            create_missing: flag("create_missing", stored.get("create_missing"), false)?,
            ..Mode::default()
        },
        truncatable: flag("truncatable", stored.get("truncatable"), false)?,
        updatable: flag("updatable", either("updatable"), true)?,
        on_unfit: on_unfit(either("on_unfit"))?.unwrap_or_default(),
    };
    Ok((server, options))
}

/// What the option `naming` of IMPORT FOREIGN SCHEMA, and of registration, says.
pub(in crate::pg) fn naming(value: &str) -> Result<Naming, Error> {
    Naming::parse(value).ok_or_else(|| {
        invalid("naming", &format!("\"{value}\""))
            .hint(format!("Allowed values are: {}.", Naming::NAMES.join(", ")))
    })
}

/// What an option `on_unfit` says, if there is one.
fn on_unfit(value: Option<&str>) -> Result<Option<OnUnfit>, Error> {
    let Some(value) = value else { return Ok(None) };
    OnUnfit::parse(value).map(Some).ok_or_else(|| {
        invalid("on_unfit", &format!("\"{value}\""))
            .hint(format!("Allowed values are: {}.", OnUnfit::NAMES.join(", ")))
    })
}

/// The server of a foreign table, and what the table is to CDF, its columns bound. The definition of a view is asked for
/// with the rights of `user`.
///
/// # Safety
/// `relation` is an open foreign table.
pub unsafe fn table_definition(
    relation: pg_sys::Relation,
    user: pg_sys::Oid,
) -> Result<(pg_sys::Oid, Table), Error> {
    // SAFETY: the caller's promise; an open relation has its tuple descriptor, which outlives this call.
    let (relid, columns) = unsafe { ((*relation).rd_id, PgTupleDesc::from_pg_unchecked((*relation).rd_att)) };
    let (server, options) = table(relid)?;
    let definitions: Vec<Option<ColumnDefinition>> = columns
        .iter()
        .map(|column| {
            if !holds_values(column) {
                return Ok(None);
            }
            // SAFETY: a catalog look-up by the column's own numbers.
            let stored = unsafe { Stored::read(pg_sys::GetForeignColumnOptions(relid, column.attnum)) };
            Ok(Some(ColumnDefinition {
                name: column_name(column),
                cdf_name: stored.text("name"),
                on_unfit: on_unfit(stored.get("on_unfit"))?,
            }))
        })
        .collect::<Result<_, Error>>()?;
    let table = match options.view.clone() {
        None => Table::new(options, definitions)?,
        Some(view) => {
            let connection = connection(server, user)?;
            views::bind(&connection, &view, |view| {
                Table::of_view(options.clone(), definitions.clone(), Some(view))
            })?
        }
    };
    Ok((server, table))
}

/// A connection is known by its server and its user mapping.
type ConnectionKey = (pg_sys::Oid, pg_sys::Oid);

thread_local! {
    /// The connections that this session has used, which hold their tokens. The backend has one thread.
    static CONNECTIONS: RefCell<HashMap<ConnectionKey, Arc<Connection>>> = RefCell::default();
}

/// The connection of a role to a server. The options are read anew each time: changed ones make a new connection,
/// so that the token of the old ones is not used any more.
pub fn connection(server: pg_sys::Oid, user: pg_sys::Oid) -> Result<Arc<Connection>, Error> {
    // SAFETY: a catalog look-up, which raises an error if there is no such server.
    let (name, stored) = unsafe {
        let server = pg_sys::GetForeignServer(server);
        (from_server((*server).servername), Stored::read((*server).options))
    };
    let base_url = url("base_url", stored.required("base_url", Place::Server)?)?;
    let mapping = user_mapping(server, user).or_else(|| user_mapping(server, pg_sys::InvalidOid));
    let Some((mapping, stored)) = mapping else {
        // SAFETY: the name is a copy in the current memory context, or a null pointer for a role that is gone.
        let user = unsafe {
            let user = pg_sys::GetUserNameFromId(user, true);
            (!user.is_null()).then(|| from_server(user))
        };
        let (user, server) = (user.map_or("PUBLIC".into(), quote_identifier), quote_identifier(name));
        return Err(Error::new(
            Kind::NotAuthenticated,
            format!("role {user} has no user mapping for server {server}"),
        )
        .hint(format!(
            "Create one with cdf_register_credentials, or with CREATE USER MAPPING FOR {user} SERVER {server} \
             OPTIONS (project '…', token_url '…', client_id '…', client_secret '…', scope '…')."
        )));
    };
    let required = |name| stored.required(name, Place::UserMapping);
    let project = required("project")?.to_owned();
    let credentials = Credentials {
        token_url: url("token_url", required("token_url")?)?,
        client_id: required("client_id")?.to_owned(),
        client_secret: SecretString::from(required("client_secret")?.to_owned()),
        scope: stored.text("scope"),
        audience: stored.text("audience"),
    };
    CONNECTIONS.with_borrow_mut(|connections| {
        if let Some(known) = connections.get(&(server, mapping)) {
            if known.base_url == base_url && known.project == project && known.credentials == credentials {
                return Ok(known.clone());
            }
        }
        let connection = Arc::new(Connection::new(base_url, project, credentials));
        connections.insert((server, mapping), connection.clone());
        Ok(connection)
    })
}

/// The mapping of exactly this role (InvalidOid: PUBLIC) on a server: its OID and options.
pub(in crate::pg) fn user_mapping(server: pg_sys::Oid, user: pg_sys::Oid) -> Option<(pg_sys::Oid, Stored)> {
    // SAFETY: look-ups in the catalogs. GetUserMapping raises an error if it finds none, and falls back to PUBLIC,
    // which the look-up before it excludes.
    unsafe {
        let exists = pg_sys::SearchSysCacheExists(
            pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as _,
            user.into(),
            server.into(),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        );
        exists.then(|| {
            let mapping = pg_sys::GetUserMapping(user, server);
            ((*mapping).umid, Stored::read((*mapping).options))
        })
    }
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

    fn name_error(place: Option<Place>, pairs: &[(&str, &str)]) -> Error {
        match check(place, pairs, false) {
            Err(Refusal::Name(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn value_error(place: Place, pairs: &[(&str, &str)]) -> Error {
        match check(Some(place), pairs, false) {
            Err(Refusal::Value(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_unique_and_have_a_place() {
        for (at, option) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS[..at].iter().all(|other| other.name != option.name), "{}", option.name);
            assert!(!option.places.is_empty());
        }
    }

    #[test]
    fn unknown_and_misplaced_names_are_refused_with_the_valid_ones() {
        let error = name_error(Some(Place::Server), &[("base_url", "https://x"), ("host", "x")]);
        assert_eq!(error.message, "invalid option \"host\" for a server");
        assert_eq!(
            error.hint.as_deref().unwrap(),
            "Valid options of a server are: base_url, on_conflict, null_handling, updatable, on_unfit."
        );
        let error = name_error(Some(Place::Server), &[("client_secret", "s3cret")]);
        assert_eq!(error.detail, ["It is an option of a user mapping."]);
        assert!(!format!("{error:?}").contains("s3cret"));
        assert_eq!(
            name_error(Some(Place::Column), &[("updatable", "true")]).detail,
            ["It is an option of a foreign table or of a server."]
        );
        assert!(name_error(None, &[("x", "y")]).message.contains("foreign-data wrapper"));
        assert_eq!(check(None, &[], false), Ok(()));
    }

    #[test]
    fn options_of_other_resources_are_refused() {
        let error = name_error(Some(Place::Table), &[("resource", "assets"), ("database", "d")]);
        assert_eq!(error.detail, ["It is an option of a table of raw_rows."]);
        assert!(!error.hint.as_deref().unwrap().contains("database"));
        let error = name_error(Some(Place::Table), &[("resource", "raw_rows"), ("create_missing", "true")]);
        assert!(error.hint.as_deref().unwrap().contains("primary_key"));
        assert_eq!(
            check(
                Some(Place::Table),
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
            check(Some(Place::Table), &of(&[("database", "d"), ("table", "t"), ("primary_key", "k")]), false),
            Ok(())
        );
        assert_eq!(check(Some(Place::Table), &of(&[]), false), Ok(()));
        assert!(value_error(Place::Table, &of(&[("database", "d")])).message.contains("go together"));
        assert!(value_error(Place::Table, &of(&[("primary_key", "k")])).message.contains("needs"));
        let long = "d".repeat(33);
        let error =
            value_error(Place::Table, &[("resource", "raw_rows"), ("database", &long), ("table", "t")]);
        assert!(error.hint.as_deref().unwrap().contains("32"));
    }

    #[test]
    fn values_are_checked() {
        assert!(value_error(Place::Table, &[("resource", "asset")])
            .hint
            .as_deref()
            .unwrap()
            .contains("assets, events"));
        let error = value_error(Place::Table, &[("resource", "assets"), ("on_conflict", "nothing")]);
        assert_eq!(error.hint.as_deref().unwrap(), "Allowed values are: update, error, ignore.");
        assert!(value_error(Place::Table, &[("resource", "assets"), ("updatable", "maybe")])
            .message
            .contains("maybe"));
        assert!(value_error(Place::Column, &[("name", "")]).message.contains("empty"));
        assert_eq!(
            check(Some(Place::Table), &[("resource", "assets"), ("truncatable", "ON")], false),
            Ok(())
        );
    }

    #[test]
    fn required_options_are_missed() {
        assert!(value_error(Place::Server, &[]).message.contains("base_url"));
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
            let error = value_error(Place::Server, &[("base_url", given)]);
            let hint = error.hint.as_deref().unwrap_or_default();
            assert!(hint.ends_with(&format!(": {right}.")), "{given}: {error} {hint}");
        }
        for given in [
            "https://cdf.example",
            "https://cdf.example/",
            "https://cdf.example/proxy",
            "https://cdf.example/my-api/cdf",
        ] {
            assert!(check(Some(Place::Server), &[("base_url", given)], false).is_ok(), "{given}");
        }
        assert!(value_error(Place::Table, &[]).message.contains("resource"));
        for at in 0..MAPPING.len() {
            let mut pairs = MAPPING.to_vec();
            let (name, _) = pairs.remove(at);
            assert!(value_error(Place::UserMapping, &pairs).message.contains(name));
        }
        assert_eq!(check(Some(Place::UserMapping), &MAPPING, false), Ok(()));
    }

    #[test]
    fn secrets_are_not_repeated() {
        let mut pairs = MAPPING.to_vec();
        pairs[0].1 = "";
        assert!(!format!("{:?}", check(Some(Place::UserMapping), &pairs, false)).contains("s3cret"));
        let error = value_error(Place::Server, &[("base_url", "https://me:s3cret@example.com")]);
        assert!(!format!("{error:?}").contains("s3cret"));
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
