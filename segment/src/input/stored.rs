//! Reads stored bytes: counts them, knows gzip and zstd by their first bytes, bounds the decompressed size.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

/// A stored object may have this many bytes.
const OBJECT_LIMIT_BYTES: u64 = 4 << 30;
/// Decompressed bytes that are always allowed.
const FREE_BYTES: u64 = 1 << 20;
/// Decompressed bytes allowed beyond for each stored byte.
const RATIO_LIMIT: u64 = 200;
const BUFFER_BYTES: usize = 128 << 10;
/// How much is looked at to recognize a format.
const HEAD_BYTES: usize = 4 << 10;

/// The decompressed bytes of an input.
pub(crate) struct StoredInput<'r> {
    decoder: Decoder<'r>,
    meter: Rc<RefCell<Meter>>,
    /// Decompressed bytes that were looked at already, the place of the next one, and how looking ended.
    head: (Vec<u8>, usize),
    head_error: Option<io::Error>,
}

/// What went through the reader below the decoder, and through the decoder.
#[derive(Default)]
struct Meter {
    stored_bytes: u64,
    /// What the decoder made of them.
    produced_bytes: u64,
    error: Option<io::Error>,
}

struct Metered<'r> {
    reader: &'r mut dyn Read,
    meter: Rc<RefCell<Meter>>,
}

/// The first bytes, looked at already, then the rest.
type Source<'r> = BufReader<io::Chain<Cursor<Vec<u8>>, Metered<'r>>>;

enum Decoder<'r> {
    Plain(Source<'r>),
    Gzip(Box<MultiGzDecoder<Source<'r>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<'r>>>),
}

impl<'r> StoredInput<'r> {
    /// Looks at the first bytes of `reader` and starts the right decoder.
    ///
    /// # Errors
    /// What the reader answers.
    pub(crate) fn open(reader: &'r mut dyn Read) -> io::Result<Self> {
        let meter = Rc::new(RefCell::new(Meter::default()));
        let mut metered = Metered { reader, meter: Rc::clone(&meter) };
        let mut magic = Vec::with_capacity(4);
        (&mut metered).take(4).read_to_end(&mut magic)?;
        let gzip = magic.starts_with(&[0x1f, 0x8b]);
        let zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let source = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(magic).chain(metered));
        let decoder = if gzip {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if zstd {
            Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?))
        } else {
            Decoder::Plain(source)
        };
        Ok(Self { decoder, meter, head: (Vec::new(), 0), head_error: None })
    }

    /// The first decompressed bytes, some thousands if there are so many; they will be read again.
    pub(crate) fn look_ahead(&mut self) -> &[u8] {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        self.head_error = (&mut *self).take(HEAD_BYTES as u64).read_to_end(&mut head).err();
        self.head = (head, 0);
        &self.head.0
    }

    /// A handle that still knows the reader's error after this was consumed.
    pub(crate) fn meter(&self) -> StoredMeter {
        StoredMeter(Rc::clone(&self.meter))
    }

    /// The same bytes, buffered.
    pub(crate) fn buffered(self) -> impl BufRead + 'r {
        BufReader::with_capacity(BUFFER_BYTES, self)
    }
}

/// See [`StoredInput::meter`].
pub(crate) struct StoredMeter(Rc<RefCell<Meter>>);

impl StoredMeter {
    /// The error of the reader itself, if it failed: the input may be fine and can be read again.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.0.borrow_mut().error.take()
    }

    /// Whether nothing came, or nothing was compressed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().produced_bytes == 0
    }
}

impl Read for StoredInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (head, place) = &mut self.head;
        if *place < head.len() {
            let length = buffer.len().min(head.len() - *place);
            buffer[..length].copy_from_slice(&head[*place..*place + length]);
            *place += length;
            return Ok(length);
        }
        if let Some(error) = self.head_error.take() {
            return Err(error);
        }
        let read = match &mut self.decoder {
            Decoder::Plain(source) => source.read(buffer)?,
            Decoder::Gzip(decoder) => decoder.read(buffer)?,
            Decoder::Zstd(decoder) => decoder.read(buffer)?,
        };
        let mut meter = self.meter.borrow_mut();
        meter.produced_bytes += read as u64;
        let allowed = FREE_BYTES.saturating_add(meter.stored_bytes.saturating_mul(RATIO_LIMIT));
        if meter.produced_bytes > allowed {
            let problem = format!("decompresses to more than {RATIO_LIMIT} times its size");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(read)
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer) {
            Ok(read) => {
                let mut meter = self.meter.borrow_mut();
                meter.stored_bytes += read as u64;
                if meter.stored_bytes > OBJECT_LIMIT_BYTES {
                    let problem = format!("more than {OBJECT_LIMIT_BYTES} bytes");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
                }
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.meter.borrow_mut().error = Some(error);
                Err(copy)
            }
        }
    }
}
