//! HTTP to CDF: tokens, deadlines, retries, and what the user is told when there is no successful answer.
//!
//! The layers, each of which calls only those above it in this list:
//! - [`exchange`]: one request until it is answered for good. It does as [`retry`] says, and [`report`] words what it
//!   tells of an [`answer`] that is no success and of a [`failure`] to get one.
//! - [`oidc`]: the credentials of a connection, and the tokens that an identity provider gives for them.
//! - [`client`]: requests to CDF with such a token.

mod answer;
mod assertion;
mod call;
pub mod client;
pub mod connection;
pub mod credentials;
pub mod endpoint;
mod exchange;
mod failure;
#[cfg(test)]
mod fuzz;
mod gzip;
mod link;
pub mod oidc;
pub mod owed;
mod proxy;
mod report;
pub mod request;
pub mod response;
pub mod retry;
pub mod route;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;
mod token;
mod token_cache;
pub mod url_path;
