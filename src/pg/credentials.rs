//! cdf_register_credentials: a role, its credentials and its tables in one call.
//!
//! Everything is done by PostgreSQL's own commands with the caller's rights. The two that carry a secret are handed over
//! as parse trees, so that no text of a statement has it, which an error's context, a module that logs or counts
//! statements, or pg_stat_activity could show.

use std::ffi::{c_char, CStr};
use std::sync::Arc;
use std::time::Instant;

use pgrx::fcinfo::{pg_arg_is_null, pg_getarg_datum_raw};
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::errors::{raise_as, OrRaise};
use super::text::{from_datum, from_server, to_datum, to_palloc, to_server};
use super::{options, preload, redact, settings, trust, wait};
use crate::cdf::activity::{Activity, Errand};
use crate::cdf::error::{list_names, Error, Kind, RequestError};
use crate::cdf::http::connection::Connection;
use crate::cdf::http::oidc::Credentials;
use crate::cdf::http::request::Limits;
use crate::cdf::resource::{Naming, Resource, RESOURCES};

/// The foreign-data wrapper's name, fixed by the extension's script.
const WRAPPER: &CStr = c"cdf_fdw";

/// The schema that every database has. It belongs to the database's owner.
const PUBLIC: &str = "public";

/// Retries while somebody waits to see whether a URL is right.
const RETRIES: u32 = 3;

/// Random bytes of a generated password: 160 bits.
const PASSWORD_BYTES: usize = 20;

/// What the caller asks for, checked.
struct Wanted {
    credentials: Credentials,
    base_url: Url,
    project: String,
    username: Option<String>,
    server: String,
    /// None: a schema called as the role.
    schema: Option<String>,
    naming: Naming,
}

/// What the caller gets.
struct Registered {
    username: String,
    /// None for a role that was there before.
    password: Option<String>,
    database: String,
    schema: String,
}

/// The SQL function. It is written against fmgr itself since pgrx has no type for `name`.
///
/// # Safety
/// Called by PostgreSQL, with the arguments that the extension's script declares.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn cdf_register_credentials(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    redact::show_current_statement();
    // SAFETY: `fcinfo` is that of a call with the declared arguments and result.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"cdf_register_credentials".as_ptr());
        let registered = Wanted::read(fcinfo).and_then(register).or_raise();
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
    redact::show_current_statement();
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

impl Wanted {
    /// # Safety
    /// `fcinfo` is that of a call of cdf_register_credentials.
    unsafe fn read(fcinfo: pg_sys::FunctionCallInfo) -> Result<Wanted, Error> {
        // SAFETY: the caller's promise: the first eight arguments are texts, and so is the last.
        let text = |number| {
            // SAFETY: as above.
            let text = unsafe {
                match pg_arg_is_null(fcinfo, number) {
                    true => return None,
                    false => from_datum(pg_getarg_datum_raw(fcinfo, number)),
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
        Ok(Wanted {
            credentials: Credentials {
                token_url: options::url("token_url", &required(0, "token_url")?)?,
                client_id: required(1, "client_id")?,
                client_secret: SecretString::from(required(2, "client_secret")?),
                scope,
                audience: text(6),
            },
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

/// Does it all, or raises an error that undoes it all. What needs no request is checked before the one to CDF.
fn register(wanted: Wanted) -> Result<Registered, Error> {
    // SAFETY: looks at the session's current role.
    let (caller, may_create) = unsafe {
        let caller = pg_sys::GetUserId();
        (caller, pg_sys::has_createrole_privilege(caller))
    };
    if !may_create {
        return Err(Error::new(Kind::Forbidden, "permission denied to register credentials")
            .hint("It takes a superuser, or a role with CREATEROLE, CREATE on the database and USAGE on the wrapper."));
    }
    let known_role = wanted.username.as_deref().and_then(role_oid);
    if let (Some(role), Some(name)) = (known_role, &wanted.username) {
        if !may_administer(caller, role) {
            return Err(Error::new(
                Kind::Forbidden,
                format!("permission denied to register role \"{name}\""),
            )
            .hint("Name a role that you may alter, or a new one."));
        }
    }
    let known_server = existing_server(&wanted, caller)?;
    check_with_cdf(&wanted)?;

    let username = match wanted.username.clone() {
        Some(name) => name,
        None => unused_name()?,
    };
    let role = quote_identifier(&username);
    let password = match known_role {
        Some(_) => None,
        None => {
            run(&format!("CREATE ROLE {role} LOGIN"))?;
            let password = SecretString::from(random_hex(PASSWORD_BYTES)?);
            set_password(&username, &password);
            Some(password)
        }
    };
    let server = quote_identifier(&wanted.server);
    let server_oid = match known_server {
        Some(server) => server,
        None => {
            let base_url = quote_literal(wanted.base_url.as_str().trim_end_matches('/'));
            run(&format!(
                "CREATE SERVER {server} FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url {base_url})"
            ))?;
            server_named(&wanted.server).ok_or_else(|| Error::internal("the new server is not there"))?.0
        }
    };
    let mapped_before = map_role(&username, server_oid, &wanted);
    let schema = wanted.schema.clone().unwrap_or_else(|| username.clone());
    let schema_before = check_schema(&schema, wanted.schema.is_some(), caller)?;
    let place = quote_identifier(&schema);
    if !schema_before {
        run(&format!("CREATE SCHEMA {place}"))?;
    }
    let missing = missing_tables(&schema, &wanted, server_oid, caller)?;
    // Where the role was registered before, what an administrator has since changed stays as it is.
    let again = mapped_before && schema_before && (schema == username || has_tables(&schema, &username)?);
    if !missing.is_empty() {
        let (names, naming) = (missing.join(", "), quote_literal(wanted.naming.name()));
        run(&format!(
            "IMPORT FOREIGN SCHEMA cdf LIMIT TO ({names}) FROM SERVER {server} INTO {place} OPTIONS (naming {naming})"
        ))?;
    }
    let granted = if again { missing } else { RESOURCES.iter().map(|resource| resource.name).collect() };
    let tables: Vec<String> = granted.iter().map(|table| format!("{place}.{table}")).collect();
    if !tables.is_empty() {
        run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {} TO {role}", tables.join(", ")))?;
    }
    let database = current_database();
    if !again {
        run(&format!("GRANT USAGE ON SCHEMA {place} TO {role}"))?;
        check_rights(&username, &schema, &tables)?;
        // The schema is in this database only, so the settings hold in it only.
        let alter = format!("ALTER ROLE {role} IN DATABASE {}", quote_identifier(&database));
        run(&format!("{alter} SET search_path = {place}"))?;
        run(&format!("{alter} SET TimeZone = 'UTC'"))?;
        if let Some(libraries) = preload::wanted(&username)? {
            run(&format!("{alter} SET session_preload_libraries = {libraries}"))?;
        }
    }
    Ok(Registered {
        schema,
        username,
        password: password.map(|password| password.expose_secret().to_owned()),
        database,
    })
}

/// Gets a token, and asks CDF what it is good for.
fn check_with_cdf(wanted: &Wanted) -> Result<(), Error> {
    let deadline_setting = settings::flush_timeout();
    let activity = Activity::asking("what the client may do".into());
    let limits = Limits {
        deadline: Instant::now() + deadline_setting,
        deadline_setting,
        request_timeout: settings::request_timeout(),
        max_retries: settings::max_retries().min(RETRIES),
        errand: Errand::of(&activity),
    };
    let client = wait::client()?;
    let connection =
        Connection::new(wanted.base_url.clone(), wanted.project.clone(), wanted.credentials.clone());
    let connection = Arc::new(connection);
    let inspection = wait::run(&activity, async move { client.inspect_token(&connection, &limits).await })?;
    let client_id = &wanted.credentials.client_id;
    let inspection = inspection.map_err(|error| match error {
        RequestError::Api(api) if matches!(api.status, 401 | 403) => {
            let why = format!("CDF refuses the token of client \"{client_id}\": {}", api.message);
            Error::new(Kind::NotAuthenticated, why)
                .trace(Some(api.trace()))
                .hint("Check base_url, scope and audience.")
        }
        // There is no user mapping yet, which the client's own hint would name.
        error => match error.into_error("") {
            error if error.kind == Kind::NotAuthenticated => {
                error.hint("Check token_url, client_id, client_secret, scope and audience.")
            }
            error => error,
        },
    })?;
    if inspection.projects.contains(&wanted.project) {
        return Ok(());
    }
    let projects = match inspection.projects.len() {
        0 => "it has access to no project".to_owned(),
        _ => {
            format!("it has access to {}", list_names(inspection.projects.iter(), inspection.projects.len()))
        }
    };
    Err(Error::new(
        Kind::NotAuthenticated,
        format!("client \"{client_id}\" has no access to the CDF project \"{}\"; {projects}", wanted.project),
    )
    .trace(Some(inspection.trace))
    .hint("Add the client to a group of the project in CDF, or check the project's name."))
}

/// PostgreSQL's rule for ALTER ROLE, which would come too late: after the request to CDF, and not at all where the
/// role's settings stay as they are.
fn may_administer(caller: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: look-ups of roles in the catalogs.
    unsafe {
        if pg_sys::superuser_arg(caller) {
            return true;
        }
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let administers = pg_sys::has_createrole_privilege(caller);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let administers = pg_sys::has_createrole_privilege(caller) && pg_sys::is_admin_of_role(caller, role);
        administers && !pg_sys::superuser_arg(role)
    }
}

fn role_oid(name: &str) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up by a NUL-terminated name.
    let oid = unsafe { pg_sys::get_role_oid(to_palloc(name), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// OID, owner and base_url of a server.
fn server_named(name: &str) -> Option<(pg_sys::Oid, pg_sys::Oid, Option<String>)> {
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

/// The wanted server, if it is there already, with the same base_url. The owner of a server decides where the rows of all
/// its roles go.
fn existing_server(wanted: &Wanted, caller: pg_sys::Oid) -> Result<Option<pg_sys::Oid>, Error> {
    let Some((server, owner, base_url)) = server_named(&wanted.server) else { return Ok(None) };
    if !trust::may_rely_on(owner, caller) {
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
    Ok(Some(server))
}

/// An object that is neither the caller's nor a superuser's.
fn somebody_elses(kind: &str, name: &str, owner: pg_sys::Oid) -> Error {
    Error::new(
        Kind::Forbidden,
        format!(
            "{kind} \"{name}\" exists, and belongs to {}, who is not a superuser",
            trust::role_name(owner)
        ),
    )
    .detail("Whoever owns it could have the credentials or the rows sent elsewhere.")
}

/// Stores the credentials in the role's user mapping. Whether there was one before.
fn map_role(username: &str, server: pg_sys::Oid, wanted: &Wanted) -> bool {
    let credentials = &wanted.credentials;
    let values = [
        ("project", Some(wanted.project.as_str())),
        ("token_url", Some(credentials.token_url.as_str())),
        ("client_id", Some(credentials.client_id.as_str())),
        ("client_secret", Some(credentials.client_secret.expose_secret())),
        ("scope", credentials.scope.as_deref()),
        ("audience", credentials.audience.as_deref()),
    ];
    // SAFETY: a look-up by a NUL-terminated name, which raises an error if the role is gone.
    let role = unsafe { pg_sys::get_role_oid(to_palloc(username), false) };
    let stored = options::user_mapping(server, role).map(|(_, stored)| stored);
    // SAFETY: the nodes are allocated in the current memory context, with every field set that the statements use.
    unsafe {
        let mut list = std::ptr::null_mut();
        for (name, value) in values {
            let action = match (stored.as_ref().and_then(|stored| stored.get(name)), value) {
                (Some(_), Some(_)) => pg_sys::DefElemAction::DEFELEM_SET,
                (None, Some(_)) => pg_sys::DefElemAction::DEFELEM_ADD,
                (Some(_), None) => pg_sys::DefElemAction::DEFELEM_DROP,
                (None, None) => continue,
            };
            list = pg_sys::lappend(list, definition(name, value, action).cast());
        }
        if stored.is_some() {
            let mut statement =
                PgBox::<pg_sys::AlterUserMappingStmt>::alloc_node(pg_sys::NodeTag::T_AlterUserMappingStmt);
            statement.user = role_spec(username);
            statement.servername = to_palloc(&wanted.server);
            statement.options = list;
            run_tree(statement.into_pg().cast(), c"ALTER USER MAPPING");
        } else {
            let mut statement =
                PgBox::<pg_sys::CreateUserMappingStmt>::alloc_node(pg_sys::NodeTag::T_CreateUserMappingStmt);
            statement.user = role_spec(username);
            statement.servername = to_palloc(&wanted.server);
            statement.options = list;
            run_tree(statement.into_pg().cast(), c"CREATE USER MAPPING");
        }
    }
    stored.is_some()
}

/// Gives a role its password, as a SCRAM verifier whatever password_encryption says.
fn set_password(username: &str, password: &SecretString) {
    // SAFETY: encrypt_password takes NUL-terminated strings and returns one in the current memory context, where the
    // nodes are allocated, too.
    unsafe {
        let verifier = pg_sys::encrypt_password(
            pg_sys::PasswordType::PASSWORD_TYPE_SCRAM_SHA_256,
            to_palloc(username),
            to_palloc(password.expose_secret()),
        );
        let verifier = CStr::from_ptr(verifier).to_string_lossy();
        let action = pg_sys::DefElemAction::DEFELEM_UNSPEC;
        let mut statement = PgBox::<pg_sys::AlterRoleStmt>::alloc_node(pg_sys::NodeTag::T_AlterRoleStmt);
        statement.role = role_spec(username);
        statement.options =
            pg_sys::lappend(std::ptr::null_mut(), definition("password", Some(&verifier), action).cast());
        statement.action = 1;
        run_tree(statement.into_pg().cast(), c"ALTER ROLE");
    }
}

/// An option of a statement.
fn definition(name: &str, value: Option<&str>, action: pg_sys::DefElemAction::Type) -> *mut pg_sys::DefElem {
    // SAFETY: all parts are allocated in the current memory context.
    unsafe {
        let value = value.map_or(std::ptr::null_mut(), |value| pg_sys::makeString(to_palloc(value)));
        pg_sys::makeDefElemExtended(std::ptr::null_mut(), to_palloc(name), value.cast(), action, -1)
    }
}

fn role_spec(username: &str) -> *mut pg_sys::RoleSpec {
    // SAFETY: a node of this tag is of this type.
    let mut role = unsafe { PgBox::<pg_sys::RoleSpec>::alloc_node(pg_sys::NodeTag::T_RoleSpec) };
    role.roletype = pg_sys::RoleSpecType::ROLESPEC_CSTRING;
    role.rolename = to_palloc(username);
    role.location = -1;
    role.into_pg()
}

/// Runs a statement given as its parse tree, through the same hooks and event triggers as any. They get `text` for the
/// statement's text.
///
/// # Safety
/// `tree` is the complete parse tree of a utility statement.
unsafe fn run_tree(tree: *mut pg_sys::Node, text: &'static CStr) {
    // SAFETY: the caller's promise; a function runs with an active snapshot, as ProcessUtility expects.
    unsafe {
        let mut planned = PgBox::<pg_sys::PlannedStmt>::alloc_node(pg_sys::NodeTag::T_PlannedStmt);
        planned.commandType = pg_sys::CmdType::CMD_UTILITY;
        planned.utilityStmt = tree;
        planned.stmt_location = -1;
        pg_sys::ProcessUtility(
            planned.into_pg(),
            text.as_ptr(),
            false,
            pg_sys::ProcessUtilityContext::PROCESS_UTILITY_QUERY,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::None_Receiver,
            std::ptr::null_mut(),
        );
        pg_sys::CommandCounterIncrement();
    }
}

fn run(sql: &str) -> Result<(), Error> {
    let sql = to_server(sql)?;
    // SAFETY: the statement is NUL-terminated and in the database's encoding; an error in it is an ERROR, which ends the
    // connection with its transaction.
    let code = unsafe {
        pg_sys::SPI_connect();
        let code = pg_sys::SPI_execute(sql.as_ptr(), false, 0);
        pg_sys::SPI_finish();
        code
    };
    match code {
        0.. => Ok(()),
        code => Err(Error::internal(format!("cannot run a statement: SPI says {code}"))),
    }
}

/// A text as a parameter of a query, which converts it: `convert_from($1, 'UTF8')`.
fn utf8(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// What a query gives as `convert_to(…, 'UTF8')`.
fn from_utf8(bytes: Option<Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn spi_error(error: spi::Error) -> Error {
    Error::internal(format!("cannot run a statement: {error}"))
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
        Some(owner) if !(trust::may_rely_on(owner, caller) || name == PUBLIC && owns_database(owner)) => {
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
    /// How it calls its columns, if the first that tells says something else than is wanted.
    fn other_naming(&self, resource: &Resource, wanted: Naming) -> Option<Naming> {
        let telling = |name: &str| Naming::of_name(name, resource.column(name)?);
        self.columns.lines().find_map(telling).filter(|naming| *naming != wanted)
    }
}

/// The built-in tables that the schema lacks. Anything else of the name of one is an error, since the role would write
/// to it and believe the rows in CDF.
fn missing_tables(
    schema: &str,
    wanted: &Wanted,
    server: pg_sys::Oid,
    caller: pg_sys::Oid,
) -> Result<Vec<&'static str>, Error> {
    let found: Vec<Relation> = Spi::connect(|client| {
        let query = "SELECT convert_to(c.relname::text, 'UTF8'), c.relowner, convert_to(o.option_value, 'UTF8'), \
                     convert_to((SELECT string_agg(a.attname::text, chr(10) ORDER BY a.attnum) FROM pg_attribute a \
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), 'UTF8') \
                     FROM pg_class c \
                     LEFT JOIN pg_foreign_table t ON t.ftrelid = c.oid AND t.ftserver = $2 \
                     LEFT JOIN pg_options_to_table(t.ftoptions) o ON o.option_name = 'resource' \
                     WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = convert_from($1, 'UTF8'))";
        client
            .select(query, None, &[utf8(schema).into(), server.into()])?
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
        if !trust::may_rely_on(relation.owner, caller) {
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

/// A name that neither a role nor a schema has.
fn unused_name() -> Result<String, Error> {
    loop {
        let name = format!("cdf_{}", random_hex(4)?);
        // SAFETY: a look-up by a NUL-terminated name.
        let schema = unsafe { pg_sys::get_namespace_oid(to_palloc(&name), true) };
        if schema == pg_sys::InvalidOid && role_oid(&name).is_none() {
            return Ok(name);
        }
    }
}

fn random_hex(bytes: usize) -> Result<String, Error> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| Error::internal(format!("the system has no random numbers: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn current_database() -> String {
    // SAFETY: the name is a copy in the current memory context; the session's database exists.
    unsafe { from_server(pg_sys::get_database_name(pg_sys::MyDatabaseId)) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_have_160_bits() {
        let password = random_hex(PASSWORD_BYTES).unwrap();
        assert_eq!(password.len(), 40);
        assert_ne!(password, random_hex(PASSWORD_BYTES).unwrap());
    }
}
