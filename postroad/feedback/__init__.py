"""Feedback: what comes back to a return path or a feedback loop's address, read and told apart.

RFC 3462, 3464, 6533 (delivery status notifications), RFC 5965, 6591, 6650 (ARF), RFC 3834 (automatic replies), and the forms
of hosts that follow none of them. The sender of a report is the adversary: any bytes do, the work is bounded, and what has
no clear marks of a bounce is `other`.
"""

from postroad.feedback.model import Complaint, Feedback, Original, Recipient
from postroad.feedback.reader import read

__all__ = ["Complaint", "Feedback", "Original", "Recipient", "read"]
