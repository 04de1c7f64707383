"""The names under which results are stored, for the benchmarks and for the documents.

Imports nothing, so that the documents can be rendered without Keras.
"""

FRAMEWORKS = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}

# The candidates of benchmarks.objectives and benchmarks.step.
PUBLIC = "NCE, public implementations"
BUFFERED = "the same, gathering into a buffer that is kept"
PRODUCT = "softmax by product and cross-entropy"
EXACT, NCE, SHARED_NCE = OBJECTIVES = ("exact softmax", "NCE", "NCE, shared negatives")

# The candidates of benchmarks.search.
FAISS = "FAISS IndexFlatIP"
WHOLE = "product, then one top-k over all scores"
SEARCH = "MemoryBank.search"

# Where the rows are in benchmarks.storage, how they are stored, and what is timed.
ON_DEVICE, ON_HOST, IN_FILE = PLACES = ("on the device", "in the host's memory", "in a file")
STORED_DTYPES = ("float32", "int8")
ATTEND, GATHER, SEARCH_MANY, SEARCH_ONE, UPDATES = STORAGE_OPERATIONS = (
    "exact softmax",
    "gather and scores for NCE",
    "search, a batch of queries",
    "search, one query",
    "20 updates",
)

# The rows of the bank in benchmarks.bank.
KINDS_OF_ROWS = ("random rows", "clustered rows")

# The candidates of benchmarks.encoders.
NATIVE = "native"
KERAS_ENCODER = "instdisc_core.encoders"

# The candidates of benchmarks.end_to_end; the last is the floor.
OURS = "InstanceDiscrimination.fit"
OURS_TWO_VIEWS = "InstanceDiscrimination.fit, two views"
PLAIN = "plain PyTorch"
LIGHTLY = "lightly, two views"
BARE = "bare native step"
