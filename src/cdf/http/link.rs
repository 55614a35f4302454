//! How far away CDF is, measured by the time that connecting takes.
//!
//! Compressing halves what is sent, and takes a second of a processor for some 250 MB. Towards the same machine or network
//! that is more time than it saves; towards a data centre it is less. Connecting takes round trips, and so tells the two
//! apart, whatever time CDF takes for its answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tower_layer::Layer;
use tower_service::Service;

/// A server that is connected to within this time, TCP and TLS together, is on the same machine or network.
const NEAR: Duration = Duration::from_millis(3);

tokio::task_local! {
    /// The server that the current task's request goes to.
    static LINK: Arc<Link>;
}

/// What is known about the way to a server.
#[derive(Debug)]
pub struct Link {
    /// The shortest time in which a connection was made, in nanoseconds.
    connecting: AtomicU64,
}

impl Link {
    pub fn new() -> Arc<Link> {
        Arc::new(Link { connecting: AtomicU64::new(u64::MAX) })
    }

    /// Whether the server is so near that compressing a body takes longer than sending it. False before the first connection.
    pub fn is_near(&self) -> bool {
        self.connecting.load(Ordering::Relaxed) < NEAR.as_nanos() as u64
    }

    /// Records a connection that was made.
    pub(super) fn connected_within(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.connecting.fetch_min(nanos, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub fn is_measured(&self) -> bool {
        self.connecting.load(Ordering::Relaxed) < u64::MAX
    }

    /// Runs a request. If it needs a new connection, the time of connecting is recorded for this server.
    pub async fn measured<R>(self: &Arc<Link>, request: impl Future<Output = R>) -> R {
        LINK.scope(self.clone(), request).await
    }
}

/// Measures the time of each connection.
#[derive(Debug, Clone, Copy)]
pub struct TimedConnections;

impl<S> Layer<S> for TimedConnections {
    type Service = Timed<S>;

    fn layer(&self, connector: S) -> Timed<S> {
        Timed(connector)
    }
}

#[derive(Debug, Clone)]
pub struct Timed<S>(S);

impl<S, R> Service<R> for Timed<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Read here, because another task than the request's may make the connection.
        let link = LINK.try_with(Arc::clone).ok();
        let start = Instant::now();
        let connecting = self.0.call(request);
        Box::pin(async move {
            let connection = connecting.await?;
            if let Some(link) = link {
                link.connected_within(start.elapsed());
            }
            Ok(connection)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_connection_counts() {
        let link = Link::new();
        assert!(!link.is_near());
        link.connected_within(Duration::from_millis(30));
        assert!(!link.is_near());
        link.connected_within(Duration::from_micros(200));
        link.connected_within(Duration::from_millis(50));
        assert!(link.is_near());
    }
}
