"""The contract between craft's processes: messages, reasons, configuration, places."""
