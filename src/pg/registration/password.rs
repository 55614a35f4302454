//! cdf_reset_password: a new password for a registered role.

use secrecy::ExposeSecret;

use super::function::{self, sql_function};
use super::{commands, record};

sql_function!(
    /// Gives the role a new password, and returns it.
    cdf_reset_password,
    pg_finfo_cdf_reset_password,
    |call| {
        call.writes();
        let username = call.required(0, "username")?;
        record::find(&username)?;
        let password = commands::new_password()?;
        commands::set_password(&username, &password);
        Ok(function::text(password.expose_secret()))
    }
);
