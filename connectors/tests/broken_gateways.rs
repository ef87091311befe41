//! Gateways and backends that do not keep to HTTP: whatever they do, a message is never said to be free to go again when
//! it may have been taken.

mod support;

use std::future::Future;
use std::net::SocketAddr;

use gatebell_engine::ports::channel::SubmitOutcome;
use gatebell_gateway_sim::SIMULATOR_APP_KEY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use support::{LOOPBACK, app_at, connector, impatient_mitake, message, mitake_settings, submit_one, unknown};

/// A server that treats every connection as `treat` does.
async fn server<F, Treated>(treat: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Treated + Send + 'static,
    Treated: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(treat(stream));
        }
    });
    address
}

/// Reads the head and some of the body of a request, then writes `answer` and closes.
async fn answer(mut stream: TcpStream, answer: &[u8]) {
    let mut request = [0; 16 * 1024];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// What both connectors say of a message to a server that answers with `text`.
async fn said_of(text: &'static [u8]) -> (SubmitOutcome, SubmitOutcome) {
    let address = server(move |stream| answer(stream, text)).await;
    let gateway = connector(mitake_settings(&format!("http://{address}/api/mtk")));
    let backend = app_at(&format!("http://{address}/push"), SIMULATOR_APP_KEY);
    (submit_one(&gateway, &message(1)).await, submit_one(&backend, &message(1)).await)
}

#[tokio::test]
async fn answers_that_are_none_leave_a_doubt() {
    let cases: [(&'static [u8], &str); 8] = [
        (b"", "broken_off"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "broken_off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[1]\r\nmsgid=12\r\nstatuscode=v\r\n", "broken_off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broken_off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n<html>please log in</html>\n", "unreadable_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x01", "unreadable_answer"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "http_502"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "http_500"),
    ];
    for (text, reason) in cases {
        let said = said_of(text).await;
        assert_eq!(said, (unknown(reason), unknown(reason)), "{}", String::from_utf8_lossy(text));
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let endless = |mut stream: TcpStream| async move {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
        let mut request = [0; 16 * 1024];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(head).await;
        while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    };
    let address = server(endless).await;
    let gateway = connector(mitake_settings(&format!("http://{address}/api/mtk")));
    assert_eq!(submit_one(&gateway, &message(1)).await, unknown("answer_too_long"));
}

#[tokio::test]
async fn a_server_that_says_nothing_leaves_a_doubt_in_time() {
    let silent = |mut stream: TcpStream| async move {
        let mut request = [0; 1024];
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
    };
    let address = server(silent).await;
    let gateway = impatient_mitake(&format!("http://{address}/api/mtk"));
    assert_eq!(submit_one(&gateway, &message(1)).await, unknown("timeout"));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_message_and_credentials() {
    let down = SubmitOutcome::GatewayDown { reason: "http_307".into() };
    // Followed, it would end as a doubt.
    let elsewhere = server(|stream| answer(stream, b"")).await;
    let text = format!("HTTP/1.1 307 Moved\r\nLocation: http://{elsewhere}/x\r\nContent-Length: 0\r\n\r\n");
    let said = said_of(Box::leak(text.into_boxed_str()).as_bytes()).await;
    assert_eq!(said, (down.clone(), down));
}

#[tokio::test]
async fn a_wrong_path_stops_the_gateway_instead_of_losing_messages() {
    let down = SubmitOutcome::GatewayDown { reason: "http_404".into() };
    let said = said_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(said, (down.clone(), down));
}

#[tokio::test]
async fn nothing_leaves_before_the_line_is_encrypted() {
    let address = server(|stream| answer(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let gateway = connector(mitake_settings(&format!("https://{address}/api/mtk")));
    let not_sent = SubmitOutcome::NotSent { reason: "no_connection".into() };
    assert_eq!(submit_one(&gateway, &message(1)).await, not_sent);
}
