//! Registrations: roles that have been given credentials, and what becomes of them.

mod check;
pub mod commands;
mod drop;
mod facade;
mod facade_shape;
mod facades;
mod function;
mod grants;
mod inspect;
mod obstacles;
mod password;
mod record;
mod register;
mod seal;
mod session;
mod tables;
mod update;
