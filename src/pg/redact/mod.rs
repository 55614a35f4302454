//! Keeps client secrets out of what a server shows of statements: its log, pg_stat_activity, and what extensions such as
//! pg_stat_statements and pgaudit record.
//!
//! Each byte of a secret literal is masked in a copy of the statement's text, and the copy is passed on instead. Every
//! position in the text stays what it is. Nothing else of a statement is hidden, and no message is suppressed, so that
//! nobody can use this to hide what he does.
//!
//! `hooks` sees the statements, `statement` is the one that is shown, and `log` masks messages. `literals` finds the secrets in
//! the `tokens` of a text, for which `names` knows what functions and prepared statements there are.

pub mod hooks;
pub mod literals;
pub mod log;
pub mod log_text;
pub mod names;
pub mod statement;
pub mod tokens;
