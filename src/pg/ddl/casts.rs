//! Replaces the extension's casts from text to JSON by a database's own.
//!
//! CREATE EXTENSION keeps a cast that exists already. A dump creates the extension before the casts, so without this
//! the database's own cast would fail as a duplicate when the dump is restored.

use pgrx::pg_sys;

use crate::pg::ours;

/// catalog/pg_cast.h
const CAST_RELATION: pg_sys::Oid = pg_sys::Oid::from_u32(2605);

/// Drops the extension's cast between two types if the statement creates another one.
///
/// # Safety
/// `tree` is a utility statement that is about to run.
pub unsafe fn make_way(tree: *mut pg_sys::Node) {
    // SAFETY: the caller's promise; a node's tag tells its type. The types of an extension's cast are its own or, as
    // here, PostgreSQL's; PostgreSQL itself raises the error for users who may not create a cast between them.
    unsafe {
        if (*tree).type_ != pg_sys::NodeTag::T_CreateCastStmt || !pg_sys::superuser() {
            return;
        }
        let statement = tree.cast::<pg_sys::CreateCastStmt>();
        let type_of = |name| pg_sys::LookupTypeNameOid(std::ptr::null_mut(), name, true);
        let (source, target) = (type_of((*statement).sourcetype), type_of((*statement).targettype));
        if source == pg_sys::InvalidOid || target == pg_sys::InvalidOid {
            return;
        }
        let cast = pg_sys::get_cast_oid(source, target, true);
        if cast == pg_sys::InvalidOid {
            return;
        }
        if !ours::is_member(CAST_RELATION, cast) {
            return;
        }
        // A member of an extension cannot be dropped by itself.
        let membership = pg_sys::DependencyType::DEPENDENCY_EXTENSION as std::ffi::c_char;
        pg_sys::deleteDependencyRecordsForClass(CAST_RELATION, cast, pg_sys::ExtensionRelationId, membership);
        pg_sys::CommandCounterIncrement();
        let object = pg_sys::ObjectAddress { classId: CAST_RELATION, objectId: cast, objectSubId: 0 };
        pg_sys::performDeletion(&raw const object, pg_sys::DropBehavior::DROP_RESTRICT, 0);
        pg_sys::CommandCounterIncrement();
    }
}
