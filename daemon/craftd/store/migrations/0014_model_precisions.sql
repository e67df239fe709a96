-- What users said that models are kept in while they are loaded.
CREATE TABLE model_precisions (
    model TEXT PRIMARY KEY,
    precision TEXT NOT NULL -- "fp32", "bf16", "fp16", "fp8" or "int8"
) WITHOUT ROWID;
