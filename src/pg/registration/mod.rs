//! Registrations: roles that have been given credentials, and what becomes of them.

mod check;
pub mod commands;
mod drop;
mod function;
mod inspect;
mod password;
mod record;
mod register;
mod seal;
mod session;
mod tables;
mod update;
