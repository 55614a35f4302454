//! A cache for one token. It does not know what a token is or where it comes from.

use std::fmt;
use std::future::Future;
use std::time::Instant;

use tokio::sync::Mutex;

/// A value with an end of its use.
pub struct Temporary<T> {
    pub value: T,
    pub renew_at: Instant,
}

/// The current token. Of several parallel requests one renews it and the others wait.
pub struct TokenCache<T, E> {
    state: Mutex<CacheState<T, E>>,
}

struct CacheState<T, E> {
    token: Option<Temporary<T>>,
    /// When and how the last renewal failed. Requests that waited for it fail with it instead of each trying again.
    failure: Option<(Instant, E)>,
}

impl<T, E> fmt::Debug for TokenCache<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

impl<T: Clone, E: Clone> TokenCache<T, E> {
    pub fn new() -> Self {
        TokenCache { state: Mutex::new(CacheState { token: None, failure: None }) }
    }

    /// The current token, or a new one from `renew`. None if the deadline passes while another request renews the token;
    /// `renew` must keep to its own deadline.
    pub async fn get<F>(&self, deadline: Instant, renew: impl FnOnce() -> F) -> Option<Result<T, E>>
    where
        F: Future<Output = Result<Temporary<T>, E>>,
    {
        let since = Instant::now();
        let mut state = tokio::time::timeout_at(deadline.into(), self.state.lock()).await.ok()?;
        if let Some((failed_at, failure)) = &state.failure {
            if *failed_at >= since {
                return Some(Err(failure.clone()));
            }
        }
        match &state.token {
            Some(token) if Instant::now() < token.renew_at => return Some(Ok(token.value.clone())),
            _ => state.token = None,
        }
        Some(match renew().await {
            Ok(token) => {
                let value = token.value.clone();
                *state = CacheState { token: Some(token), failure: None };
                Ok(value)
            }
            Err(error) => {
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        })
    }

    /// Forgets the current token if it is the given one.
    pub async fn forget(&self, is_meant: impl FnOnce(&T) -> bool) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| is_meant(&token.value)) {
            state.token = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_waits_for_another_request_beyond_the_deadline() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cache = Arc::new(TokenCache::<u8, ()>::new());
            let later = Instant::now() + Duration::from_secs(600);
            let (other, never) = (cache.clone(), std::future::pending);
            let renewing = tokio::spawn(async move { other.get(later, never).await });
            tokio::task::yield_now().await;
            let token = || std::future::ready(Ok(Temporary { value: 1, renew_at: later }));
            assert_eq!(cache.get(Instant::now(), token).await, None);
            renewing.abort();
            assert!(renewing.await.is_err());
            assert_eq!(cache.get(later, token).await, Some(Ok(1)));
        });
    }
}
