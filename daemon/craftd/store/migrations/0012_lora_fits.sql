-- What models have for LoRAs to change, by a hash of their configurations: it takes seconds to find out.
CREATE TABLE model_layouts (
    key TEXT PRIMARY KEY,
    layout TEXT NOT NULL, -- JSON; empty: it is not known
    why TEXT NOT NULL -- it is not
) WITHOUT ROWID;

-- How each LoRA fits each of them.
CREATE TABLE lora_fits (
    sha256 TEXT NOT NULL,
    layout TEXT NOT NULL, -- the layout's key
    fit TEXT NOT NULL, -- JSON
    PRIMARY KEY (sha256, layout)
) WITHOUT ROWID;

CREATE TRIGGER loras_forget_their_fits AFTER DELETE ON loras BEGIN
    DELETE FROM lora_fits WHERE sha256 = OLD.sha256;
END;
