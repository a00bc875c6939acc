//! Callers that ask too often, over the router as it stands.

use std::num::NonZeroU32;

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode, header::RETRY_AFTER},
    response::Response,
};
use tower::ServiceExt;

use super::{Api, Arc, config, rate::Rates, router, tests::House};

/// A house whose counters `set` made small.
async fn house(set: impl Fn(&mut config::Server)) -> House {
    House::with(|mut api| {
        set(&mut api.settings);
        router(Arc::new(Api { rates: Rates::new(&api.settings), ..api }))
    })
    .await
}

async fn ask(house: &House, peer: &str, bearer: &str) -> Response {
    let mut request = Request::get("/v1/queue/stats")
        .header("authorization", format!("Bearer {bearer}"))
        .body(Body::empty())
        .expect("a request");
    request.extensions_mut().insert(ConnectInfo::<std::net::SocketAddr>(peer.parse().expect("an address")));
    house.router.clone().oneshot(request).await.expect("answered")
}

/// Asks until it is too often; the seconds to wait.
async fn until_refused(house: &House, peer: &str, bearer: &str) -> u64 {
    for _ in 0..1_000 {
        let answer = ask(house, peer, bearer).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            return answer.headers()[RETRY_AFTER].to_str().expect("text").parse().expect("seconds");
        }
    }
    panic!("a thousand requests were let through");
}

const ONE: NonZeroU32 = NonZeroU32::MIN;

#[tokio::test]
async fn atk_051_guessing_tokens_stops_without_locking_out_the_neighbour() {
    let house = house(|server| server.token_guesses_per_minute = ONE.saturating_add(1)).await;
    let (here, elsewhere) = ("203.0.113.9:1", "203.0.113.10:1");
    assert_eq!(ask(&house, here, &house.sharma).await.status(), StatusCode::OK, "a shop opens, behind one router");
    let stranger = "mnm_0123456789abcdef_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef_00000000";
    let wait = until_refused(&house, here, stranger).await;
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(ask(&house, here, &house.verma).await.status(), StatusCode::TOO_MANY_REQUESTS, "one never seen");
    assert_eq!(ask(&house, here, &house.sharma).await.status(), StatusCode::OK, "the shop goes on");
    assert_eq!(ask(&house, elsewhere, &house.verma).await.status(), StatusCode::OK, "elsewhere nobody guessed");
    assert_eq!(ask(&house, here, &house.verma).await.status(), StatusCode::OK, "known by now, also here");
}

#[tokio::test]
async fn atk_051_a_guess_in_the_query_costs_as_much_as_one_in_the_header() {
    let house = house(|server| server.token_guesses_per_minute = ONE).await;
    let ask = async || {
        let mut request = Request::get(format!("/v1/queue/stats?t={}", house.sharma)).body(Body::empty()).expect("one");
        request.extensions_mut().insert(ConnectInfo(std::net::SocketAddr::from(([203, 0, 113, 9], 1))));
        house.router.clone().oneshot(request).await.expect("answered").status()
    };
    assert_eq!(ask().await, StatusCode::BAD_REQUEST);
    assert_eq!(ask().await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_token_that_asks_too_often_waits_alone() {
    let house = house(|server| server.requests_per_second_per_token = ONE).await;
    let wait = until_refused(&house, "203.0.113.9:1", &house.sharma).await;
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(ask(&house, "203.0.113.9:1", &house.verma).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_tokens_of_a_business_share_what_it_may_ask() {
    let house = house(|server| server.requests_per_second_per_business = ONE).await;
    until_refused(&house, "203.0.113.9:1", &house.sharma).await;
    assert_eq!(ask(&house, "203.0.113.9:1", &house.verma).await.status(), StatusCode::OK, "another business");
    for _ in 0..10 {
        assert_eq!(
            ask(&house, "203.0.113.9:1", &house.all).await.status(),
            StatusCode::OK,
            "a token of all businesses"
        );
    }
}
