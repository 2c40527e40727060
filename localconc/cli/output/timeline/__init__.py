"""Pictures of the history: who held a limit, who waited for it, and whom they waited for.

Offers the model (`timeline_of`), and what draws it: `text`, `svg`, `page`, `trace`.
Must not know: commands, options, or the engine.
"""
