-- What users said that models predict, where nothing in a model says so or it says the wrong thing.
CREATE TABLE model_predictions (
    model TEXT PRIMARY KEY,
    prediction TEXT NOT NULL -- "epsilon", "v" or "v-zero-snr"
) WITHOUT ROWID;
