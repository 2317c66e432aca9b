//! A connection's first bytes, for which a client has not for ever.
//!
//! hyper tells HTTP/1.1 from HTTP/2 by the first bytes, and its own time limits begin only after that. Until then, this one holds.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that fails when, within a time, not enough came to tell which protocol its client speaks.
#[derive(Debug)]
pub struct PromptStream<S> {
    stream: S,
    /// How much of [`HTTP2_PREFACE`] came, and until when the rest must; `None` once the protocol is known.
    awaited: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> PromptStream<S> {
    /// Its client has this long.
    pub fn new(stream: S, within: Duration) -> Self {
        Self { stream, awaited: Some((0, Box::pin(sleep(within)))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PromptStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { stream, awaited } = &mut *self;
        let Poll::Ready(read) = Pin::new(stream).poll_read(context, buffer) else {
            if let Some((_, deadline)) = awaited {
                ready!(deadline.as_mut().poll(context));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came")));
            }
            return Poll::Pending;
        };
        if let Some((matched, _)) = awaited {
            let came = &buffer.filled()[before..];
            let left = &HTTP2_PREFACE[*matched..];
            *matched += came.len();
            if came.len() >= left.len() || !left.starts_with(came) || came.is_empty() {
                *awaited = None;
            }
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PromptStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const WITHIN: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn whoever_sends_nothing_or_too_little_is_left() {
        for sent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
            let (mut client, server) = duplex(100);
            client.write_all(sent).await.expect("is sent");
            let mut server = PromptStream::new(server, WITHIN);
            let mut read = Vec::new();
            let error = server.read_to_end(&mut read).await.expect_err("is left");
            assert_eq!((error.kind(), read.as_slice()), (io::ErrorKind::TimedOut, sent));
        }
    }

    #[tokio::test]
    async fn whoever_began_may_take_its_time() {
        for (first, second) in
            [(&b"G"[..], &b"ET"[..]), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"later"), (b"PRX", b"later")]
        {
            let (mut client, server) = duplex(100);
            let mut server = PromptStream::new(server, WITHIN);
            // In two parts, as a network may cut it.
            client.write_all(&first[..1]).await.expect("is sent");
            let mut read = vec![0; first.len()];
            server.read_exact(&mut read[..1]).await.expect("comes");
            client.write_all(&first[1..]).await.expect("is sent");
            server.read_exact(&mut read[1..]).await.expect("comes");
            assert_eq!(read, first);
            let sending = tokio::spawn(async move {
                sleep(WITHIN * 3).await;
                client.write_all(second).await.expect("is sent");
            });
            let mut late = vec![0; second.len()];
            server.read_exact(&mut late).await.expect("is waited for");
            assert_eq!(late, second);
            sending.await.expect("ends");
        }
    }
}
