//! The probe `grpc`: one call of `grpc.health.v1.Health/Check` (grpc/grpc-proto, `grpc/health/v1/health.proto`).

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;
/// A longer answer is none.
const MAX_ANSWER: usize = 4096;

/// Whether the service says that it serves; `None` for what is no answer.
pub(super) async fn is_serving(host: &str, port: u16, service: &str) -> Option<bool> {
    let stream = TcpStream::connect((host, port)).await.ok()?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.ok()?;
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.34")
        .body(Full::new(encode_request(service)?))
        .ok()?;
    let call = async {
        let response = sender.send_request(request).await.ok()?;
        let headers = response.headers().clone();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
        // An answer without a message has its status among the headers.
        let trailers = body.trailers().cloned().unwrap_or(headers);
        Some(is_ok(&trailers) && decode_status(&body.to_bytes()) == Some(SERVING))
    };
    tokio::select! {
        answer = call => answer,
        _ = connection => None,
    }
}

fn is_ok(trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").is_some_and(|status| status.as_bytes() == b"0")
}

/// A message of one field, number 1, in a frame of gRPC: a byte that says that it is not compressed, its length, itself.
fn encode_request(service: &str) -> Option<Bytes> {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).ok()? | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).ok()?);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).ok()?);
    frame.put(message);
    Some(frame.freeze())
}

/// The status in the frame of an answer: field 1, a small number; a message without it says 0.
fn decode_status(frame: &[u8]) -> Option<u8> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    match (head[0], message) {
        (0, message) if u32::try_from(message.len()) != Ok(length) => None,
        (0, []) => Some(0),
        (0, [0x08, status]) if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    async fn answer(
        request: Request<Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.expect("a request").to_bytes();
        let (message, status) = match &asked[..] {
            b"\0\0\0\0\0" => (&b"\0\0\0\0\x02\x08\x01"[..], "0"),
            b"\0\0\0\0\x06\x0a\x04down" => (&b"\0\0\0\0\x02\x08\x02"[..], "0"),
            _ => (&b""[..], "5"),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static(status));
        let frames = [Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)];
        let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
        Ok(Response::builder().header("content-type", "application/grpc").body(body).expect("a response"))
    }

    #[tokio::test]
    async fn only_what_serves_is_good() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(connection);
            }
        });
        assert_eq!(is_serving("127.0.0.1", port, "").await, Some(true));
        assert_eq!(is_serving("127.0.0.1", port, "down").await, Some(false));
        assert_eq!(is_serving("127.0.0.1", port, "unknown").await, Some(false));
        server.abort();
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = other.local_addr().expect("an address").port();
        let refuses = async { drop(other.accept().await) };
        let (answer, ()) = tokio::join!(is_serving("127.0.0.1", port, ""), refuses);
        assert_eq!(answer, None);
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        assert_eq!(decode_status(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(decode_status(b"\0\0\0\0\0"), Some(0));
        for frame in [&b""[..], b"\0\0", b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0\x09\x08\x01", b"\0\0\0\0\x02\x10\x01"] {
            assert_eq!(decode_status(frame), None, "{frame:?}");
        }
    }
}
