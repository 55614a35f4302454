//! The kinds of joins that can be made by key.

use pgrx::pg_sys;

/// What becomes of a row of the outer side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// It is given with each row that it is joined with.
    Inner,
    /// The same, and alone if there is none.
    Left,
    /// It is given once if there is a row to be joined with.
    Semi,
    /// It is given if there is none.
    Anti,
}

impl JoinKind {
    const ALL: [JoinKind; 4] = [JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti];

    /// None for those that keep all rows of the inner side. `JOIN_UNIQUE_OUTER` is an inner join of different rows.
    pub fn of(join: pg_sys::JoinType::Type) -> Option<JoinKind> {
        Some(match join {
            pg_sys::JoinType::JOIN_INNER | pg_sys::JoinType::JOIN_UNIQUE_OUTER => JoinKind::Inner,
            pg_sys::JoinType::JOIN_LEFT => JoinKind::Left,
            pg_sys::JoinType::JOIN_SEMI => JoinKind::Semi,
            pg_sys::JoinType::JOIN_ANTI => JoinKind::Anti,
            _ => return None,
        })
    }

    /// Whether conditions of the join are others than those on its result.
    pub fn is_outer(self) -> bool {
        matches!(self, JoinKind::Left | JoinKind::Anti)
    }

    /// As a plan holds it.
    pub fn to_integer(self) -> i32 {
        self as i32
    }

    pub fn from_integer(integer: i32) -> Option<JoinKind> {
        JoinKind::ALL.into_iter().find(|kind| kind.to_integer() == integer)
    }

    /// As EXPLAIN names it.
    pub fn name(self) -> &'static str {
        match self {
            JoinKind::Inner => "Inner",
            JoinKind::Left => "Left",
            JoinKind::Semi => "Semi",
            JoinKind::Anti => "Anti",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_kept_in_plans() {
        for kind in JoinKind::ALL {
            assert_eq!(JoinKind::from_integer(kind.to_integer()), Some(kind));
        }
        assert_eq!(JoinKind::from_integer(4), None);
    }
}
