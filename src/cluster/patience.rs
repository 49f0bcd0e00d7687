//! Waits for as long as the API server asks to (`Retry-After`), and a little where it only says that it is busy.
//!
//! An asker may give up in the meantime: a write under a lease has its limit. What remains is the time before which
//! nobody asks for the same again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use hyper::{Method, Request, Response};
use kube::{
    Client,
    client::{Body, retry::RetryPolicy},
};
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, retry::Policy};

/// What is asked for: method and path.
type Asked = (Method, String);

/// When it may be asked for again.
#[derive(Clone, Default)]
struct Patience(Arc<Mutex<HashMap<Asked, Instant>>>);

/// The same client, which is patient. It retries by itself: the one that is given should not.
pub(super) fn patient(client: Client) -> Client {
    let patience = Patience::default();
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| ask(client.clone(), patience.clone(), request));
    Client::new(service, namespace)
}

async fn ask(client: Client, patience: Patience, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let asked = (request.method().clone(), request.uri().path().to_owned());
    let mut policy = RetryPolicy::server_retry();
    loop {
        patience.wait(&asked).await;
        let again = Policy::<_, Response<Body>, _>::clone_request(&mut policy, &request);
        let mut answer = client.send(request).await.map_err(BoxError::from);
        // A body that cannot be sent twice is not: nobody here has one.
        let Some(mut again) = again else { return answer };
        let Some(pause) = policy.retry(&mut again, &mut answer) else { return answer };
        patience.note(asked.clone(), pause.deadline());
        request = again;
    }
}

impl Patience {
    async fn wait(&self, asked: &Asked) {
        while let Some(until) = self.until(asked) {
            sleep_until(until).await;
        }
    }

    /// `None`, and forgotten, once it is over.
    fn until(&self, asked: &Asked) -> Option<Instant> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = all.get(asked).copied()?;
        if until > Instant::now() {
            return Some(until);
        }
        all.remove(asked);
        None
    }

    fn note(&self, asked: Asked, until: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(asked, until);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A server that refuses the first so many requests, and the times at which it was asked.
    fn server(refused: usize) -> (Client, Arc<Mutex<Vec<Instant>>>) {
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            let mut seen = seen.lock().unwrap();
            seen.push(Instant::now());
            let busy = Response::builder().status(429).header("Retry-After", "8").body(Body::empty());
            let answer = if seen.len() <= refused { busy.unwrap() } else { Response::new(Body::empty()) };
            async move { Ok::<_, BoxError>(answer) }
        });
        (patient(Client::new(service, "default")), asked)
    }

    async fn get(client: &Client, path: &str) -> u16 {
        let request = Request::get(path).body(Body::empty()).unwrap();
        client.send(request).await.unwrap().status().as_u16()
    }

    fn waits(asked: &Mutex<Vec<Instant>>) -> Vec<u64> {
        let asked = asked.lock().unwrap();
        asked.iter().map(|at| (*at - asked[0]).as_secs()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_again_when_it_was_told_to() {
        let (client, asked) = server(2);
        assert_eq!(get(&client, "/a").await, 200);
        assert_eq!(waits(&asked), [0, 8, 16]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_and_asks_again_waits_all_the_same() {
        let (client, asked) = server(1);
        for _ in 0..2 {
            assert!(timeout(Duration::from_secs(3), get(&client, "/a")).await.is_err());
        }
        assert_eq!(get(&client, "/b").await, 200, "something else need not wait");
        assert_eq!(get(&client, "/a").await, 200);
        assert_eq!(waits(&asked), [0, 6, 8]);
    }
}
