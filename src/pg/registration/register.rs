//! cdf_register_credentials: a role, its credentials and its tables in one call.

use std::ffi::{c_char, CStr};

use pgrx::fcinfo::{pg_arg_is_null, pg_getarg_datum_raw};
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::commands::{self, from_utf8, run, spi_error, utf8};
use super::{facade, facades, inspect, record};
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::credentials::{Credentials, OidcClient, Proof, TokenAuth};
use crate::cdf::http::route::Route;
use crate::cdf::resource::{Naming, Resource, RESOURCES};
use crate::pg::ddl::{options, preload, sealing};
use crate::pg::errors::{raise_as, OrRaise};
use crate::pg::redact;
use crate::pg::rights;
use crate::pg::text::{from_datum, from_server, to_datum, to_palloc};
use crate::seal;

/// The foreign-data wrapper's name, fixed by the extension's script.
const WRAPPER: &CStr = c"cdf_fdw";

/// The schema that every database has. It belongs to the database's owner.
const PUBLIC: &str = "public";

/// What the caller asks for, checked.
pub(super) struct RegistrationRequest {
    pub(super) credentials: Credentials,
    pub(super) base_url: Url,
    pub(super) project: String,
    pub(super) username: Option<String>,
    pub(super) server: String,
    /// None: a schema called as the role.
    pub(super) schema: Option<String>,
    pub(super) naming: Naming,
}

/// What the caller gets.
pub(super) struct Registered {
    pub(super) username: String,
    /// None for a role that was there before.
    pub(super) password: Option<String>,
    pub(super) database: String,
    pub(super) schema: String,
}

/// The SQL function. It is written against fmgr itself since pgrx has no type for `name`.
///
/// # Safety
/// Called by PostgreSQL, with the arguments that the extension's script declares.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn cdf_register_credentials(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    redact::statement::show_current_statement();
    // SAFETY: `fcinfo` is that of a call with the declared arguments and result.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"cdf_register_credentials".as_ptr());
        let registered = RegistrationRequest::read(fcinfo).and_then(register).or_raise();
        row(fcinfo, &registered)
    }
}

/// The planner's support function of cdf_register_credentials. It has no advice; but calling it loads this library, and
/// with it what masks the secret, before PostgreSQL finds that the caller may not execute the function, and logs that.
///
/// # Safety
/// Called by PostgreSQL.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn cdf_register_credentials_support(
    _fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    redact::statement::show_current_statement();
    pg_sys::Datum::null()
}

/// PostgreSQL finds a function's calling convention by these names.
#[no_mangle]
pub extern "C" fn pg_finfo_cdf_register_credentials() -> &'static pg_sys::Pg_finfo_record {
    &CALLING_CONVENTION
}

/// As above, for the support function.
#[no_mangle]
pub extern "C" fn pg_finfo_cdf_register_credentials_support() -> &'static pg_sys::Pg_finfo_record {
    &CALLING_CONVENTION
}

static CALLING_CONVENTION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

impl RegistrationRequest {
    /// # Safety
    /// `fcinfo` is that of a call of cdf_register_credentials.
    unsafe fn read(fcinfo: pg_sys::FunctionCallInfo) -> Result<RegistrationRequest, Error> {
        // SAFETY: the caller's promise: the first eight arguments are texts, and so is the last.
        let text = |number| {
            // SAFETY: as above.
            let text = unsafe {
                if pg_arg_is_null(fcinfo, number) {
                    return None;
                } else {
                    from_datum(pg_getarg_datum_raw(fcinfo, number))
                }
            };
            Some(text.or_raise()).filter(|text| !text.is_empty())
        };
        let required = |number, name: &str| {
            text(number).ok_or_else(|| {
                Error::new(Kind::MissingValue, format!("cdf_register_credentials needs a value for {name}"))
            })
        };
        // SAFETY: the ninth and the tenth are names, which are NUL-terminated strings in place.
        let name = |number| unsafe {
            let is_null = pg_arg_is_null(fcinfo, number);
            (!is_null).then(|| from_server(pg_getarg_datum_raw(fcinfo, number).cast_mut_ptr::<c_char>()))
        };
        let server = name(8).ok_or_else(|| {
            Error::new(Kind::MissingValue, "cdf_register_credentials needs a value for server")
        })?;
        let scope = text(3);
        let base_url = match (text(5), &scope) {
            (Some(base_url), _) => base_url,
            (None, Some(scope)) => scope
                .strip_suffix("/.default")
                .ok_or_else(|| {
                    Error::new(Kind::MissingValue, "cdf_register_credentials needs a value for base_url")
                        .hint("It can be left out where scope is the URL of CDF followed by /.default.")
                })?
                .to_owned(),
            (None, None) => {
                return Err(Error::new(
                    Kind::MissingValue,
                    "cdf_register_credentials needs a value for scope or base_url",
                ))
            }
        };
        let username = text(7);
        if let Some(name) = username.as_deref().filter(|name| name.len() >= pg_sys::NAMEDATALEN as usize) {
            return Err(Error::new(Kind::InvalidValue, format!("the username \"{name}\" is too long"))
                .hint(format!("PostgreSQL takes names of up to {} bytes.", pg_sys::NAMEDATALEN - 1)));
        }
        Ok(RegistrationRequest {
            credentials: Credentials::Client(OidcClient {
                token_url: options::url("token_url", &required(0, "token_url")?)?,
                client_id: required(1, "client_id")?,
                proof: Proof::Secret(plain(required(2, "client_secret")?)?, TokenAuth::default()),
                scope,
                audience: text(6),
            }),
            base_url: options::url("base_url", &base_url)?,
            project: required(4, "project")?,
            username,
            server,
            schema: name(9).filter(|schema| !schema.is_empty()),
            naming: match text(10) {
                Some(naming) => options::naming(&naming)?,
                None => Naming::default(),
            },
        })
    }
}

/// A secret that is given to be stored.
///
/// # Errors
/// `InvalidOption` if it is sealed.
pub(super) fn plain(secret: String) -> Result<SecretString, Error> {
    if seal::is_sealed(&secret) {
        Err(Error::new(Kind::InvalidOption, "the client_secret that is given is a sealed one")
            .hint("Give the secret itself. It is sealed when it is stored."))
    } else {
        Ok(secret.into())
    }
}

/// Registers, or raises an error that undoes everything. What needs no request is checked before the request to CDF.
pub(super) fn register(wanted: RegistrationRequest) -> Result<Registered, Error> {
    // SAFETY: looks at the session's current role.
    let (caller, may_create) = unsafe {
        let caller = pg_sys::GetUserId();
        (caller, pg_sys::has_createrole_privilege(caller))
    };
    if !may_create {
        return Err(Error::new(Kind::Forbidden, "permission denied to register credentials")
            .hint("It takes a superuser, or a role with CREATEROLE, CREATE on the database and USAGE on the wrapper."));
    }
    let known_role = wanted.username.as_deref().and_then(commands::role_oid);
    if let (Some(role), Some(name)) = (known_role, &wanted.username) {
        if !commands::may_administer(caller, role) {
            return Err(Error::new(
                Kind::Forbidden,
                format!("permission denied to register role \"{name}\""),
            )
            .hint("Name a role that you may alter, or a new one."));
        }
    }
    let known_server = existing_server(&wanted, caller)?;
    let mapper = match &known_server {
        Some((_, owner)) => commands::mapper(&wanted.server, *owner, caller)?,
        None => caller,
    };
    if let (Some(role), Some(name)) = (known_role, &wanted.username) {
        let registrations = record::of(role)?;
        record::check_registrar(name, &registrations, caller)?;
        let is_registered = || registrations.iter().any(|known| known.server == wanted.server);
        if let Some((server, _)) = known_server.filter(|_| mapper != caller) {
            if options::user_mapping(server, role).is_some() && !is_registered() {
                return Err(mapped_by_hand(name, &wanted.server));
            }
        }
    }
    let route = match &known_server {
        Some((server, _)) => options::route(*server)?,
        None => Route::default(),
    };
    // An unusable key is reported before the secret is sent anywhere.
    sealing::keys_to_seal()?;
    inspect::check(&wanted.base_url, &wanted.project, &wanted.credentials, route)?;

    let username = match wanted.username.clone() {
        Some(name) => name,
        None => unused_name()?,
    };
    let role = quote_identifier(&username);
    let password = match known_role {
        Some(_) => None,
        None => {
            run(&format!("CREATE ROLE {role} LOGIN"))?;
            let password = commands::new_password()?;
            commands::set_password(&username, &password);
            Some(password)
        }
    };
    let server = quote_identifier(&wanted.server);
    let server_oid = match known_server {
        Some((server, _)) => server,
        None => {
            let base_url = quote_literal(wanted.base_url.as_str().trim_end_matches('/'));
            run(&format!(
                "CREATE SERVER {server} FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url {base_url})"
            ))?;
            server_named(&wanted.server).ok_or_else(|| Error::internal("the new server is not there"))?.0
        }
    };
    let mapped_before = commands::map_role(
        &username,
        (&wanted.server, server_oid),
        mapper,
        &wanted.project,
        &wanted.credentials,
    )?;
    let schema = wanted.schema.clone().unwrap_or_else(|| username.clone());
    let schema_before = check_schema(&schema, wanted.schema.is_some(), caller)?;
    let place = quote_identifier(&schema);
    if !schema_before {
        run(&format!("CREATE SCHEMA {place}"))?;
    }
    let missing = missing_tables(&schema, &wanted, server_oid, caller)?;
    // If the role was registered before, later changes of an administrator stay.
    let again = mapped_before && schema_before && (schema == username || has_tables(&schema, &username)?);
    if !missing.is_empty() {
        let (names, naming) = (missing.join(", "), quote_literal(wanted.naming.name()));
        run(&format!(
            "IMPORT FOREIGN SCHEMA cdf LIMIT TO ({names}) FROM SERVER {server} INTO {place} OPTIONS (naming {naming})"
        ))?;
    }
    let granted =
        if again { missing.clone() } else { RESOURCES.iter().map(|resource| resource.name).collect() };
    let tables: Vec<String> = granted.iter().map(|table| format!("{place}.{table}")).collect();
    if !tables.is_empty() {
        run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {} TO {role}", tables.join(", ")))?;
    }
    let database = commands::current_database();
    if !again {
        run(&format!("GRANT USAGE ON SCHEMA {place} TO {role}"))?;
        check_rights(&username, &schema, &tables)?;
        // The schema is in this database only, so the settings hold in it only.
        let alter = format!("ALTER ROLE {role} IN DATABASE {}", quote_identifier(&database));
        // With what the extension has made for roles.
        let extension = extension_schema()?;
        let path = if extension == schema {
            place.clone()
        } else {
            format!("{place}, {}", quote_identifier(&extension))
        };
        run(&format!("{alter} SET search_path = {path}"))?;
        run(&format!("{alter} SET TimeZone = 'UTC'"))?;
        if let Some(libraries) = preload::wanted(&username)? {
            run(&format!("{alter} SET session_preload_libraries = {libraries}"))?;
        }
    }
    let role = commands::role_oid(&username).ok_or_else(|| Error::internal("the new role is not there"))?;
    let registration = record::Registration {
        server: wanted.server,
        schema: schema.clone(),
        registrar: caller,
        made_role: known_role.is_none(),
        made_schema: !schema_before,
        tables: missing.iter().map(|table| (*table).to_owned()).collect(),
    };
    record::keep(role, &registration)?;
    facade::join(role, &registration, &missing)?;
    record::let_manage(caller)?;
    Ok(Registered {
        schema,
        username,
        password: password.map(|password| password.expose_secret().to_owned()),
        database,
    })
}

/// OID, owner and base_url of a server.
pub(super) fn server_named(name: &str) -> Option<(pg_sys::Oid, pg_sys::Oid, Option<String>)> {
    // SAFETY: look-ups in the catalogs; a server that is there has a wrapper.
    unsafe {
        let server = pg_sys::GetForeignServerByName(to_palloc(name), true).as_ref()?;
        let wrapper = pg_sys::GetForeignDataWrapper(server.fdwid);
        if CStr::from_ptr((*wrapper).fdwname) != WRAPPER {
            raise_as(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                Error::new(Kind::InvalidOption, format!("server \"{name}\" is not one of cdf_fdw"))
                    .hint("Give another name in the parameter server."),
            );
        }
        let base_url = options::Stored::read(server.options).get("base_url").map(str::to_owned);
        Some((server.serverid, server.owner, base_url))
    }
}

/// The wanted server and its owner, if it is there already, with the same base_url. The owner of a server decides where the rows of all
/// its roles go.
fn existing_server(
    wanted: &RegistrationRequest,
    caller: pg_sys::Oid,
) -> Result<Option<(pg_sys::Oid, pg_sys::Oid)>, Error> {
    let Some((server, owner, base_url)) = server_named(&wanted.server) else { return Ok(None) };
    if !rights::may_rely_on(owner, caller) {
        return Err(somebody_elses("server", &wanted.server, owner).hint(
            "Give another name in the parameter server, or have the server's owner register the role.",
        ));
    }
    let base_url = base_url.unwrap_or_default();
    let same =
        |url: &Url| url.as_str().trim_end_matches('/') == wanted.base_url.as_str().trim_end_matches('/');
    if !Url::parse(&base_url).is_ok_and(|url| same(&url)) {
        raise_as(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            Error::new(
                Kind::InvalidOption,
                format!(
                    "server \"{}\" already exists with another base_url, {base_url}; these credentials are for {}",
                    wanted.server, wanted.base_url
                ),
            )
            .hint("Give another name in the parameter server."),
        );
    }
    Ok(Some((server, owner)))
}

/// The error for a role whose mapping on another's server no registration has made: its rows would go to another project.
fn mapped_by_hand(username: &str, server: &str) -> Error {
    Error::new(
        Kind::Forbidden,
        format!("role \"{username}\" has a user mapping on server \"{server}\" already, which no registration has made"),
    )
    .hint("Have a superuser or the server's owner register the role, or give another username or server.")
}

/// The error for an object that is neither the caller's nor a superuser's.
fn somebody_elses(kind: &str, name: &str, owner: pg_sys::Oid) -> Error {
    Error::new(
        Kind::Forbidden,
        format!(
            "{kind} \"{name}\" exists, and belongs to {}, who is not a superuser",
            rights::role_name(owner)
        ),
    )
    .detail("Whoever owns it could have the credentials or the rows sent elsewhere.")
}

/// Whether the schema is there. The owner of a schema could put other tables in the place of the role's. `named`: the caller
/// has chosen it.
fn check_schema(name: &str, named: bool, caller: pg_sys::Oid) -> Result<bool, Error> {
    let owner = Spi::connect(|client| {
        let query = "SELECT nspowner FROM pg_namespace WHERE nspname = convert_from($1, 'UTF8')";
        match client.select(query, Some(1), &[utf8(name).into()])?.first().get_one::<pg_sys::Oid>() {
            Err(spi::Error::InvalidPosition) => Ok(None),
            owner => owner,
        }
    })
    .map_err(spi_error)?;
    match owner {
        Some(owner) if !(rights::may_rely_on(owner, caller) || name == PUBLIC && owns_database(owner)) => {
            let other = if named { "schema" } else { "username" };
            Err(somebody_elses("schema", name, owner)
                .hint(format!("Give another {other}, or have the schema's owner register the role.")))
        }
        owner => Ok(owner.is_some()),
    }
}

/// Whether a role is the database's owner, or stands for whoever that is.
fn owns_database(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalogs by the session's own database.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::DATABASEOID as _,
            pg_sys::MyDatabaseId.into(),
        );
        if tuple.is_null() {
            return false;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>()).datdba;
        pg_sys::ReleaseSysCache(tuple);
        role == owner || role.to_u32() == pg_sys::ROLE_PG_DATABASE_OWNER
    }
}

/// Whether a role has been granted rights on a built-in table of a schema, as registration does.
fn has_tables(schema: &str, username: &str) -> Result<bool, Error> {
    let names: Vec<String> = RESOURCES.iter().map(|resource| quote_literal(resource.name)).collect();
    let query = format!(
        "SELECT true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a \
         JOIN pg_roles r ON r.oid = a.grantee \
         WHERE n.nspname = convert_from($1, 'UTF8') AND r.rolname = convert_from($2, 'UTF8') AND c.relname IN ({})",
        names.join(", ")
    );
    let found = Spi::connect(|client| {
        client
            .select(query.as_str(), Some(1), &[utf8(schema).into(), utf8(username).into()])
            .map(|rows| rows.len())
    });
    found.map(|rows| rows > 0).map_err(spi_error)
}

/// A relation of the schema, as far as it matters here.
struct Relation {
    name: String,
    owner: pg_sys::Oid,
    /// The resource, for a table of the wanted server.
    resource: Option<String>,
    /// The names of its columns, a line each.
    columns: String,
}

impl Relation {
    /// How the table names its columns, if not as wanted.
    fn other_naming(&self, resource: &Resource, wanted: Naming) -> Option<Naming> {
        let telling = |name: &str| Naming::of_name(name, resource.column(name)?);
        self.columns.lines().find_map(telling).filter(|naming| *naming != wanted)
    }
}

/// The built-in tables that the schema lacks. Anything else of the name of one is an error, since the role would write
/// to it and believe the rows in CDF.
fn missing_tables(
    schema: &str,
    wanted: &RegistrationRequest,
    server: pg_sys::Oid,
    caller: pg_sys::Oid,
) -> Result<Vec<&'static str>, Error> {
    // One that was given another partition beside the foreign table is somebody's own.
    let mut standing = facades::in_schema(schema)?;
    standing.retain(|facade| facade.is_whole());
    let (of_them, partitions) = facades::pairs(&standing);
    let found: Vec<Relation> = Spi::connect(|client| {
        let query = "SELECT convert_to(c.relname::text, 'UTF8'), c.relowner, convert_to(o.option_value, 'UTF8'), \
                     convert_to((SELECT string_agg(a.attname::text, chr(10) ORDER BY a.attnum) FROM pg_attribute a \
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), 'UTF8') \
                     FROM pg_class c LEFT JOIN unnest($3, $4) f(facade, partition) ON f.facade = c.oid \
                     LEFT JOIN pg_foreign_table t ON t.ftrelid = coalesce(f.partition, c.oid) AND t.ftserver = $2 \
                     LEFT JOIN pg_options_to_table(t.ftoptions) o ON o.option_name = 'resource' \
                     WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = convert_from($1, 'UTF8'))";
        client
            .select(query, None, &[utf8(schema).into(), server.into(), of_them.into(), partitions.into()])?
            .map(|row| {
                Ok(Relation {
                    name: from_utf8(row.get(1)?).unwrap_or_default(),
                    owner: row.get(2)?.unwrap_or(pg_sys::InvalidOid),
                    resource: from_utf8(row.get(3)?),
                    columns: from_utf8(row.get(4)?).unwrap_or_default(),
                })
            })
            .collect::<Result<_, spi::Error>>()
    })
    .map_err(spi_error)?;
    let other = if wanted.schema.is_some() { "schema" } else { "username" };
    let mut missing = Vec::new();
    for resource in RESOURCES {
        let Some(relation) = found.iter().find(|relation| relation.name == resource.name) else {
            missing.push(resource.name);
            continue;
        };
        if !rights::may_rely_on(relation.owner, caller) {
            let name = format!("{schema}.{}", relation.name);
            return Err(somebody_elses("relation", &name, relation.owner)
                .hint(format!("Have it dropped, or give another {other}.")));
        }
        if relation.resource.as_deref() != Some(resource.name) {
            let what = match &relation.resource {
                Some(other) => format!("a table of {other}"),
                None => format!("not a table of server \"{}\"", wanted.server),
            };
            raise_as(
                PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
                Error::new(
                    Kind::Duplicate,
                    format!("schema \"{schema}\" has a relation \"{}\" that is {what}", relation.name),
                )
                .hint(format!("Move it away, or give another {other} or server.")),
            )
        }
        if let Some(naming) = relation.other_naming(resource, wanted.naming) {
            let (name, naming) = (&relation.name, naming.name());
            raise_as(
                PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
                Error::new(
                    Kind::Duplicate,
                    format!(
                        "schema \"{schema}\" has a table \"{name}\" whose columns are called in {naming}"
                    ),
                )
                .hint(format!("Give naming => '{naming}', or another {other}.")),
            )
        }
    }
    Ok(missing)
}

/// PostgreSQL only warns whoever grants what he has no right to grant.
fn check_rights(username: &str, schema: &str, tables: &[String]) -> Result<(), Error> {
    let lacking = Spi::connect(|client| {
        let query = "SELECT convert_to(what, 'UTF8') FROM (\
                     SELECT format('schema %I', name) what FROM convert_from($1, 'UTF8') role, \
                     convert_from($3, 'UTF8') name WHERE NOT has_schema_privilege(role, name, 'USAGE') UNION ALL \
                     SELECT format('table %s', name) FROM convert_from($1, 'UTF8') role, unnest($2) given, \
                     convert_from(given, 'UTF8') name WHERE NOT has_table_privilege(role, name, 'SELECT') \
                     OR NOT has_table_privilege(role, name, 'INSERT') OR NOT has_table_privilege(role, name, 'UPDATE') \
                     OR NOT has_table_privilege(role, name, 'DELETE')) lacking";
        let tables: Vec<Vec<u8>> = tables.iter().map(|table| utf8(table)).collect();
        let arguments = [utf8(username).into(), tables.into(), utf8(schema).into()];
        match client.select(query, Some(1), &arguments)?.first().get_one::<Vec<u8>>() {
            Err(spi::Error::InvalidPosition) => Ok(None),
            lacking => lacking,
        }
    })
    .map_err(spi_error)?;
    match from_utf8(lacking) {
        Some(object) => Err(Error::new(
            Kind::Forbidden,
            format!("permission denied to grant role \"{username}\" its rights on {object}"),
        )
        .hint("Have its owner register the role, or give another username or schema.")),
        None => Ok(()),
    }
}

/// The schema that the extension is in.
fn extension_schema() -> Result<String, Error> {
    let query = "SELECT convert_to(n.nspname::text, 'UTF8') FROM pg_extension e \
                 JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'cdf_fdw'";
    let found = Spi::connect(|client| client.select(query, Some(1), &[])?.first().get_one::<Vec<u8>>());
    from_utf8(found.map_err(spi_error)?).ok_or_else(|| Error::internal("the extension has no schema"))
}

/// A name that neither a role nor a schema has.
fn unused_name() -> Result<String, Error> {
    loop {
        let name = format!("cdf_{}", commands::random_hex(4)?);
        // SAFETY: a look-up by a NUL-terminated name.
        let schema = unsafe { pg_sys::get_namespace_oid(to_palloc(&name), true) };
        if schema == pg_sys::InvalidOid && commands::role_oid(&name).is_none() {
            return Ok(name);
        }
    }
}

/// The one row of the result. A set-returning function may return a single row without any more ceremony.
///
/// # Safety
/// `fcinfo` is that of a call of cdf_register_credentials.
unsafe fn row(fcinfo: pg_sys::FunctionCallInfo, registered: &Registered) -> pg_sys::Datum {
    // SAFETY: the caller's promise: the result has four columns, all of them texts.
    unsafe {
        let mut columns = std::ptr::null_mut();
        pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut columns);
        let columns = pg_sys::BlessTupleDesc(columns);
        let values = [
            Some(registered.username.as_str()),
            registered.password.as_deref(),
            Some(registered.database.as_str()),
            Some(registered.schema.as_str()),
        ]
        .map(|value| value.map(to_datum));
        let mut nulls = values.map(|value| value.is_none());
        let mut values = values.map(|value| value.unwrap_or(pg_sys::Datum::null()));
        let tuple = pg_sys::heap_form_tuple(columns, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}
