//! Values instead of bytes: what the blocks of a core mean.

use std::{
    borrow::Borrow,
    fmt,
    ops::{Range, RangeBounds},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_lite::Stream;

use crate::{
    Hypercore,
    error::{Error, Result},
    request::GetOptions,
    stream::{ReadOptions, ReadStream},
};

/// Why a codec could not translate.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// How values become blocks, and blocks values.
///
/// ```
/// use hypercore::{Bytes, Codec, CodecError};
///
/// struct Number;
///
/// impl Codec for Number {
///     type Value = u32;
///
///     fn encode(&self, value: &u32) -> Result<Bytes, CodecError> {
///         Ok(Bytes::copy_from_slice(&value.to_be_bytes()))
///     }
///
///     fn decode(&self, bytes: Bytes) -> Result<u32, CodecError> {
///         Ok(u32::from_be_bytes(bytes[..].try_into()?))
///     }
/// }
/// ```
pub trait Codec {
    /// What a block means.
    type Value;

    /// The bytes of `value`.
    ///
    /// # Errors
    ///
    /// When there are none.
    fn encode(&self, value: &Self::Value) -> Result<Bytes, CodecError>;

    /// The value that `bytes` stand for. They may come from anybody the writer let write.
    ///
    /// # Errors
    ///
    /// When they mean nothing.
    fn decode(&self, bytes: Bytes) -> Result<Self::Value, CodecError>;
}

/// Blocks as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Binary;

impl Codec for Binary {
    type Value = Bytes;

    fn encode(&self, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: Bytes) -> Result<Bytes, CodecError> {
        Ok(bytes)
    }
}

/// Text in UTF-8.
// JS: bytes that are no UTF-8 are replaced in silence; here: they are an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8;

impl Codec for Utf8 {
    type Value = String;

    fn encode(&self, value: &String) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: Bytes) -> Result<String, CodecError> {
        Ok(String::from_utf8(bytes.into())?)
    }
}

/// JSON and a newline, as Node writes it (`codecs/index.js`, ndjson). Feature `json`.
#[cfg(feature = "json")]
pub struct Json<T>(std::marker::PhantomData<fn(T) -> T>);

#[cfg(feature = "json")]
impl<T> Json<T> {
    /// The codec for values of type `T`.
    #[must_use]
    pub const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

#[cfg(feature = "json")]
impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "json")]
impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        *self
    }
}

#[cfg(feature = "json")]
impl<T> Copy for Json<T> {}

#[cfg(feature = "json")]
impl<T> fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec for Json<T> {
    type Value = T;

    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        let mut bytes = serde_json::to_vec(value)?;
        bytes.push(b'\n');
        Ok(bytes.into())
    }

    fn decode(&self, bytes: Bytes) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Hypercore {
    /// This core with values in place of bytes.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// use hypercore::{Hypercore, Utf8};
    ///
    /// let core = Hypercore::options().open_memory().await?.with_codec(Utf8);
    /// core.append("hello".to_owned()).await?;
    /// let text: String = core.get(0).await?;
    /// # assert_eq!(text, "hello");
    /// # Ok::<_, hypercore::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_codec<C: Codec>(&self, codec: C) -> Typed<C> {
        Typed {
            core: self.clone(),
            codec: Arc::new(codec),
        }
    }
}

/// A core of values: see [`Hypercore::with_codec`]. What has nothing to do with values is done
/// with the [core](Self::core) itself.
pub struct Typed<C> {
    core: Hypercore,
    /// Shared with streams, also where it cannot be cloned.
    codec: Arc<C>,
}

impl<C> Clone for Typed<C> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            codec: Arc::clone(&self.codec),
        }
    }
}

impl<C> fmt::Debug for Typed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

impl<C: Codec> Typed<C> {
    /// The core below.
    #[must_use]
    pub fn core(&self) -> &Hypercore {
        &self.core
    }

    /// Appends one value, or what a reference to one points to; returns its index.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], and as [`Hypercore::append`].
    pub async fn append(&self, value: impl Borrow<C::Value>) -> Result<u64> {
        let block = self.codec.encode(value.borrow()).map_err(Error::Encode)?;
        self.core.append(block).await
    }

    /// Appends values as one unit; returns their indexes.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], and as [`Hypercore::append_batch`]. Then nothing is appended.
    pub async fn append_batch<V: Borrow<C::Value>>(
        &self,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Range<u64>> {
        let encode = |value: V| self.codec.encode(value.borrow()).map_err(Error::Encode);
        let blocks: Vec<_> = values.into_iter().map(encode).collect::<Result<_>>()?;
        self.core.append_batch(blocks).await
    }

    /// The value of block `index`.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], and as [`Hypercore::get`].
    pub async fn get(&self, index: u64) -> Result<C::Value> {
        self.get_with(index, GetOptions::default()).await
    }

    /// The value of block `index`.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], and as [`Hypercore::get_with`].
    pub async fn get_with(&self, index: u64, options: GetOptions) -> Result<C::Value> {
        self.decode(self.core.get_with(index, options).await?)
    }

    /// The values of several blocks. An open end means the present length.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], and as [`Hypercore::get_batch`].
    pub async fn get_batch(&self, blocks: impl RangeBounds<u64>) -> Result<Vec<C::Value>> {
        self.get_batch_with(blocks, GetOptions::default()).await
    }

    /// The values of several blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], and as [`Hypercore::get_batch_with`].
    pub async fn get_batch_with(
        &self,
        blocks: impl RangeBounds<u64>,
        options: GetOptions,
    ) -> Result<Vec<C::Value>> {
        let blocks = self.core.get_batch_with(blocks, options).await?;
        blocks.into_iter().map(|block| self.decode(block)).collect()
    }

    /// The value of the last block.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], and as [`Hypercore::head`].
    pub async fn head(&self) -> Result<C::Value> {
        self.head_with(GetOptions::default()).await
    }

    /// The value of the last block.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], and as [`Hypercore::head_with`].
    pub async fn head_with(&self, options: GetOptions) -> Result<C::Value> {
        self.decode(self.core.head_with(options).await?)
    }

    /// Values in order: see [`Hypercore::read_stream`]. A block that cannot be decoded does not end
    /// the stream.
    pub fn read_stream(&self, options: ReadOptions) -> TypedReadStream<C> {
        TypedReadStream {
            blocks: self.core.read_stream(options),
            codec: Arc::clone(&self.codec),
        }
    }

    fn decode(&self, block: Bytes) -> Result<C::Value> {
        self.codec.decode(block).map_err(Error::Decode)
    }
}

/// Values in order: see [`Typed::read_stream`].
#[must_use = "streams do nothing unless polled"]
pub struct TypedReadStream<C> {
    blocks: ReadStream,
    codec: Arc<C>,
}

impl<C> fmt::Debug for TypedReadStream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReadStream").finish_non_exhaustive()
    }
}

impl<C: Codec> Stream for TypedReadStream<C> {
    type Item = Result<C::Value>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let block = Pin::new(&mut self.blocks).poll_next(cx);
        block.map(|block| Some(block?.and_then(|it| self.codec.decode(it).map_err(Error::Decode))))
    }
}
