//! Who may see the statistics of a table.
//!
//! The view pg_stats shows values of a table to whoever may read the table. Of a table of CDF each role reads what its own
//! credentials give; but statistics are of what one of them has read.

use std::ptr;

use pgrx::pg_sys;

use crate::pg::catalog;
use crate::pg::ddl::options;

/// A role of pg_authid.
struct Authority {
    oid: pg_sys::Oid,
    superuser: bool,
    can_log_in: bool,
}

/// A role that may read a table, or one that it is a part of, and has other credentials than those that the sample is read with.
/// Superusers may see everything.
///
/// # Safety
/// Called within a statement; the table is one of the server.
pub unsafe fn stranger(
    relation: pg_sys::Oid,
    server: pg_sys::Oid,
    sampled_as: pg_sys::Oid,
) -> Option<pg_sys::Oid> {
    // SAFETY: the caller's promise; look-ups in the catalogs.
    unsafe {
        let relations = with_ancestors(relation);
        let roles: Vec<Authority> = roles().into_iter().filter(|role| !role.superuser).collect();
        let may_read = |role: pg_sys::Oid| {
            relations.iter().any(|relation| {
                let right = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
                let ok = pg_sys::AclResult::ACLCHECK_OK;
                pg_sys::pg_class_aclcheck(*relation, role, right) == ok
                    || pg_sys::pg_attribute_aclcheck_all(
                        *relation,
                        role,
                        right,
                        pg_sys::AclMaskHow::ACLMASK_ANY,
                    ) == ok
            })
        };
        let readers: Vec<pg_sys::Oid> =
            roles.iter().map(|role| role.oid).filter(|role| may_read(*role)).collect();
        // Whoever is a member of a role may become it. A role that nobody can log in as has no credentials to compare.
        let reads = |role: &&Authority| {
            readers
                .iter()
                .any(|reader| *reader == role.oid || pg_sys::is_member_of_role_nosuper(role.oid, *reader))
        };
        let has_the_same = |role: pg_sys::Oid| {
            let (Ok(one), Ok(other)) =
                (options::connection(server, sampled_as), options::connection(server, role))
            else {
                return false;
            };
            one.project == other.project && one.credentials == other.credentials
        };
        let mut others = roles.iter().filter(|role| role.can_log_in && role.oid != sampled_as).filter(reads);
        others.find(|role| !has_the_same(role.oid)).map(|role| role.oid)
    }
}

/// A table, and those that it is a partition of or inherits from, however indirectly.
unsafe fn with_ancestors(relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut found = vec![relation];
    let mut parents = Vec::new();
    // SAFETY: the columns are not null, and of type oid.
    unsafe {
        catalog::scan(catalog::INHERITS, ptr::null_mut(), |values, _| {
            parents.push((oid(values, catalog::INHERITS_CHILD), oid(values, catalog::INHERITS_PARENT)));
        });
    }
    let mut at = 0;
    while let Some(child) = found.get(at).copied() {
        let new = |parent: &pg_sys::Oid| !found.contains(parent);
        let more: Vec<pg_sys::Oid> =
            parents.iter().filter(|(of, _)| *of == child).map(|(_, parent)| *parent).filter(new).collect();
        found.extend(more);
        at += 1;
    }
    found
}

unsafe fn roles() -> Vec<Authority> {
    let mut found = Vec::new();
    // SAFETY: the columns are not null, and of the types oid and bool.
    unsafe {
        catalog::scan(pg_sys::AuthIdRelationId, ptr::null_mut(), |values, _| {
            let flag = |number: u32| values[number as usize - 1].value() & 1 == 1;
            found.push(Authority {
                oid: oid(values, pg_sys::Anum_pg_authid_oid),
                superuser: flag(pg_sys::Anum_pg_authid_rolsuper),
                can_log_in: flag(pg_sys::Anum_pg_authid_rolcanlogin),
            });
        });
    }
    found
}

fn oid(values: &[pg_sys::Datum], number: u32) -> pg_sys::Oid {
    pg_sys::Oid::from(values[number as usize - 1].value() as u32)
}
