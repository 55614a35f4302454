//! The rights on a table, given to another one.

use pgrx::prelude::*;

use super::commands::{from_utf8, run, spi_error, utf8};
use crate::cdf::error::Error;

/// What a table lets whom do, with its columns' own rights. The owner has his without being granted them.
const RIGHTS: &str = "SELECT a.grantee, a.privilege_type, a.is_grantable, NULL::name AS attname FROM pg_class c, \
     aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE c.oid = $TABLE \
     UNION SELECT a.grantee, a.privilege_type, a.is_grantable, t.attname FROM pg_attribute t, aclexplode(t.attacl) a \
     WHERE t.attrelid = $TABLE AND NOT t.attisdropped";

/// Gives `to`, which is `name` in SQL, the rights that are granted on `from`, and no others. Both belong to the same role.
pub fn copy(from: pg_sys::Oid, to: pg_sys::Oid, name: &str) -> Result<(), Error> {
    let (given, had) = (RIGHTS.replace("$TABLE", "$1"), RIGHTS.replace("$TABLE", "$2"));
    // Rights that somebody has passed on are granted by the owner then.
    let query = format!(
        "WITH given AS ({given}), had AS ({had}), \
         statement AS (SELECT 1 AS turn, format('REVOKE ALL ON TABLE %s FROM %s CASCADE', convert_from($3, 'UTF8'), \
           CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) AS text \
           FROM had GROUP BY grantee \
         UNION ALL SELECT 2, format('GRANT %s ON TABLE %s TO %s%s', \
           string_agg(privilege_type || coalesce(' (' || quote_ident(attname) || ')', ''), ', '), convert_from($3, 'UTF8'), \
           CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
           CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
           FROM given GROUP BY grantee, is_grantable) \
         SELECT convert_to(text, 'UTF8') FROM statement \
         WHERE EXISTS (SELECT FROM (TABLE given EXCEPT TABLE had) more) \
         OR EXISTS (SELECT FROM (TABLE had EXCEPT TABLE given) fewer) ORDER BY turn"
    );
    let statements: Vec<String> = Spi::connect(|client| {
        client
            .select(query.as_str(), None, &[from.into(), to.into(), utf8(name).into()])?
            .map(|row| Ok(from_utf8(row.get(1)?).unwrap_or_default()))
            .collect::<Result<_, spi::Error>>()
    })
    .map_err(spi_error)?;
    statements.iter().try_for_each(|statement| run(statement))
}
